"""Single files of a model folder: which hold the weights, whether they are whole, whether they may be read."""

import json
import math
from pathlib import Path
from typing import Any

from ropewalk.errors import CheckpointError

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
MAX_HEADER = 100 * 1024 * 1024  # bytes; safetensors' own limit

_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "consolidated.00.pth", "model.pt")


def files_of_weights(folder: Path) -> tuple[str, ...]:
    """Names of the safetensors files, in order; every one is in the folder. Raises CheckpointError otherwise."""
    if (folder / INDEX).is_file():
        return _indexed(folder)
    if (folder / WEIGHTS).is_file():
        return (WEIGHTS,)
    pickles = [name for name in _PICKLES if (folder / name).exists()]
    if pickles:
        raise CheckpointError(
            f"{folder} holds its weights as {pickles[0]}, a pickle, which can run code when opened.\n"
            "  Ropewalk reads safetensors only.\n"
            "  Convert it where you trust it: load it with transformers and call save_pretrained."
        )
    raise CheckpointError(
        f"{folder} holds no weights: neither {WEIGHTS} nor {INDEX} is there.\n  Fetch the checkpoint again."
    )


def _indexed(folder: Path) -> tuple[str, ...]:
    path = folder / INDEX
    try:
        names = sorted(set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path} is not an index of weights: {error!r}.\n  Fetch it again.") from None
    for name in names:
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
            raise CheckpointError(f"{path} names {name!r}, which is not a safetensors file in the same folder.")
    if not names:
        raise CheckpointError(f"{path} names no files of weights.\n  Fetch the checkpoint again.")
    absent = [name for name in names if len(name) > 255 or not (folder / name).is_file()]
    if absent:
        raise CheckpointError(
            f"{path} names {len(names)} files of weights, and {len(absent)} are missing: {', '.join(absent[:3])}.\n"
            "  Fetch the checkpoint again."
        )
    return tuple(names)


def stored_numbers(path: Path) -> int:
    """Numbers in a safetensors file, its header checked against its size."""
    header, _ = header_of(path)
    return sum(math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")


def header_of(path: Path) -> tuple[dict[str, Any], int]:
    """What a safetensors file says of its tensors, and the byte where they begin; checked against the file's size.

    Raises CheckpointError for a file that is not whole.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(MAX_HEADER, size - 8):
                raise ValueError(f"a header of {length} bytes in a file of {size}")
            header = json.loads(file.read(length))
        tensors = [tensor for name, tensor in header.items() if name != "__metadata__"]
        sides = [side for tensor in tensors for side in tensor["shape"]]
        if not tensors or not all(isinstance(side, int) and side >= 0 for side in sides):
            raise ValueError("no tensors, or one with a side that is no whole number")
        end = max((tensor["data_offsets"][1] for tensor in tensors), default=0)
        if 8 + length + end != size:
            raise ValueError(f"{size} bytes where its header promises {8 + length + end}")
        return header, 8 + length
    except OSError as error:
        raise unreadable(path, error) from None
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise CheckpointError(
            f"{path} is not a whole safetensors file: {error}.\n"
            "  A download that broke off, or a pointer in place of the file, looks like this.\n"
            "  Fetch it again."
        ) from None


def require_readable(path: Path) -> None:
    """Raises CheckpointError for a file that may not be read, so that it is not taken for one that cannot be written."""
    try:
        path.open("rb").close()
    except OSError as error:
        raise unreadable(path, error) from None


def unreadable(path: Path, error: OSError) -> CheckpointError:
    return CheckpointError(
        f"{path} cannot be read: {error.strerror or error}.\n"
        "  A model is read as it lies: its folder, config, weights and tokenizer files.\n"
        "  Mend the path or the permissions, or fetch the checkpoint again."
    )
