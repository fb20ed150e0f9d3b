"""Which files of a model folder hold the weights, and whether they, and what lies beside them, are what they should be."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ropewalk.checkpoint.headers import StoredTensor, stored_tensors
from ropewalk.checkpoint.inside import is_plain_name, require_inside, require_readable, unreadable
from ropewalk.errors import CheckpointError
from ropewalk.reading import parsed_json, read_bounded, shown

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
ADAPTER = "adapter_config.json"
MAX_COMPANION = 256 * 1024 * 1024  # bytes; the largest tokenizer.json in use has about 35 MB

_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_TOKENIZER_PATHS = (
    "tokenizer_file",
    "vocab_file",
    "merges_file",
    "spm_file",
    "added_tokens_file",
    "chat_template_file",
)
_ATTENTION = ("attn_implementation", "_attn_implementation")


def files_of_weights(folder: Path) -> tuple[str, ...]:
    """Names of the safetensors files, in order; every one is in the folder. Raises CheckpointError otherwise.

    Where there are a single file and an index, the file counts, as for transformers.
    """
    if (folder / WEIGHTS).is_file():
        return (WEIGHTS,)
    if (folder / INDEX).is_file():
        return _indexed(folder)
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in _PICKLES)
    if pickles:
        raise CheckpointError(
            f"{folder} holds its weights as {shown(pickles[0])}, a pickle, which can run code when opened.\n"
            "  Ropewalk reads safetensors only.\n"
            "  Convert it where you trust it: load it with transformers and call save_pretrained."
        )
    raise CheckpointError(
        f"{folder} holds no weights: neither {WEIGHTS} nor {INDEX} is there.\n"
        "  Expected a folder as transformers saves it.\n"
        "  Fetch the checkpoint again."
    )


def _indexed(folder: Path) -> tuple[str, ...]:
    path = folder / INDEX
    names = sorted(set(weight_map(path).values()))
    absent = [name for name in names if not (folder / name).is_file()]
    if absent:
        raise CheckpointError(
            f"{path} names {len(names)} files of weights, and {len(absent)} are missing: {', '.join(absent[:3])}.\n"
            "  Every file that it names has to lie in the same folder.\n"
            "  Fetch the checkpoint again."
        )
    return tuple(names)


def weight_map(path: Path) -> dict[str, str]:
    """The file of each tensor, as an index says it. Raises CheckpointError where it names anything but files beside it."""
    require_inside(path)
    try:
        return weight_map_of(read_bounded(path))
    except OSError as error:
        raise unreadable(path, error) from None
    except ValueError as error:
        raise CheckpointError(
            f"{path} is not an index of weights: {error}.\n"
            "  Expected a weight_map that gives, for each tensor, a safetensors file in the same folder.\n"
            "  Fetch it again."
        ) from None


def weight_map_of(raw: bytes) -> dict[str, str]:
    """The same from the text of an index. Raises ValueError."""
    content = parsed_json(raw)
    names = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(names, dict) or not names:
        raise ValueError("it has no weight_map")
    for name in names.values():
        if not is_plain_name(name) or not name.endswith(".safetensors"):
            raise ValueError(f"it names {shown(name)}, which is not a safetensors file in the same folder")
    return names


def checked_tensors(folder: Path, files: tuple[str, ...]) -> dict[str, tuple[StoredTensor, ...]]:
    """The tensors of each file of weights, every header checked, and the index against them."""
    tensors = {name: stored_tensors(folder / name) for name in files}
    held: dict[str, str] = {}
    for file, own in tensors.items():
        for tensor in own:
            if tensor.name in held:
                raise _contradiction(folder, f"{shown(tensor.name)} is in {held[tensor.name]} and in {file}")
            held[tensor.name] = file
    if files != (WEIGHTS,):
        for name, file in weight_map(folder / INDEX).items():
            if held.get(name) != file:
                raise _contradiction(folder, f"{INDEX} says that {shown(name)} is in {file}, and it is not")
    if not any(tensor.count for own in tensors.values() for tensor in own):
        raise _contradiction(folder, "its weights hold no numbers")
    return tensors


def _contradiction(folder: Path, what: str) -> CheckpointError:
    return CheckpointError(
        f"the weights in {folder} contradict themselves: {what}.\n"
        "  Each tensor has one place, in the file that the index says.\n"
        "  Fetch the checkpoint again."
    )


def require_own_code_only(config: Mapping[str, Any], source: str) -> None:
    """Raises CheckpointError for a config that would have transformers open or run something else than this folder's.

    A config may also name classes of its own (auto_map); those are never imported, and need no refusal.
    """
    named = config.get("transformers_weights")
    if named not in (None, WEIGHTS, INDEX):
        raise CheckpointError(
            f"transformers_weights is {shown(named)} in {source}.\n"
            f"  Weights are read from {WEIGHTS}, or from the files that {INDEX} names, and were checked there.\n"
            "  Remove the key."
        )
    text = config.get("text_config")
    for part in (config, text if isinstance(text, Mapping) else {}):
        for key in _ATTENTION:
            if (said := part.get(key)) is not None and not (isinstance(said, str) and said.isidentifier()):
                raise CheckpointError(
                    f"{key} is {shown(said)} in {source}.\n"
                    "  A name such as sdpa or eager is one of transformers' own; anything else would be fetched and run.\n"
                    "  Remove the key."
                )


def require_plain_companions(folder: Path, names: tuple[str, ...]) -> None:
    """Raises CheckpointError where a file beside the weights is a link out of the folder, no file, or beyond all measure."""
    if (folder / ADAPTER).exists() or (folder / ADAPTER).is_symlink():
        raise CheckpointError(
            f"{folder} holds an adapter ({ADAPTER}), and not a whole model, or one with an adapter over it.\n"
            "  transformers would load the adapter too, unasked.\n"
            "  Merge it first (peft's merge_and_unload), or take the adapter's files out of the folder."
        )
    for name in names:
        path = folder / name
        require_inside(path)
        if not path.exists():
            continue
        size = path.stat().st_size
        if not path.is_file() or size > MAX_COMPANION:
            raise CheckpointError(
                f"{path} is {f'a file of {size:,} bytes' if path.is_file() else 'not a plain file'}.\n"
                f"  Expected a plain file of at most {MAX_COMPANION:,} bytes, as every published model has it.\n"
                "  Put the right file in its place, or remove it."
            )
        require_readable(path)
    _require_own_tokenizer(folder / "tokenizer_config.json")


def _require_own_tokenizer(path: Path) -> None:
    """What a tokenizer is read from lies in its folder. A config that is no JSON is the tokenizer's loader to refuse."""
    try:
        content = json.loads(path.read_bytes()) if path.is_file() else None
    except (ValueError, RecursionError):
        return
    if not isinstance(content, dict):
        return
    several = content.get("fast_tokenizer_files")
    named = [(key, content.get(key)) for key in _TOKENIZER_PATHS]
    named += [("fast_tokenizer_files", one) for one in (several if isinstance(several, list) else [several])]
    for key, name in named:
        if name is not None and not is_plain_name(name):
            raise CheckpointError(
                f"{key} is {shown(name)} in {path}.\n"
                "  A tokenizer is read from files in the model's own folder, named without a path.\n"
                "  Remove the key: the files are found by their usual names."
            )
