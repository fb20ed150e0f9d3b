"""The header of a safetensors file: which tensors lie where. Everything it claims is checked against the file.

The rules are those of the format: the tensors fill the rest of the file, one after the other, with no gap and no
overlap, and each takes the bytes of its shape and dtype.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ropewalk.checkpoint.inside import require_inside, unreadable
from ropewalk.errors import CheckpointError
from ropewalk.reading import MAX_BYTES, parsed_json, shown

# bits a number; the names are the format's own
BITS = {
    **dict.fromkeys(("F4",), 4),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    **dict.fromkeys(
        ("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"),
        8,
    ),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
    **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("I64", "U64", "F64", "C64"), 64),
}
LARGEST_SIDE = 2**48  # beyond it no file of ours could hold one row; products stay quick
MOST_SIDES = 16
METADATA = "__metadata__"


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a file: `start` and `stop` are its bytes, counted from the beginning of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int

    @property
    def count(self) -> int:
        return math.prod(self.shape)


def stored_tensors(path: Path) -> tuple[StoredTensor, ...]:
    """The tensors of a safetensors file in the order of its header. Raises CheckpointError where it is not whole."""
    require_inside(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            raw = file.read(8)
            length = int.from_bytes(raw, "little")
            if not 2 <= length <= min(MAX_BYTES, size - 8):
                raise ValueError(f"a header of {length:,} bytes in a file of {size:,}")
            return tensors_of(file.read(length), size)
    except OSError as error:
        raise unreadable(path, error) from None
    except ValueError as error:
        raise CheckpointError(
            f"{path} is not a whole safetensors file: {error}.\n"
            "  A download that broke off, a pointer in place of the file, or a header that lies, looks like this.\n"
            "  Fetch it again."
        ) from None


def tensors_of(header: bytes, size: int) -> tuple[StoredTensor, ...]:
    """The tensors of a header in a file of `size` bytes. Raises ValueError for a claim that the file does not bear out."""
    content = parsed_json(header)
    if not header.startswith(b"{") or not isinstance(content, dict):
        raise ValueError("its header is no object")
    metadata = content.pop(METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError(f"{METADATA} holds something else than texts")
    if not content:
        raise ValueError("no tensors")
    first = 8 + len(header)
    tensors = tuple(_tensor(name, entry, first) for name, entry in content.items())
    end = first
    for tensor in sorted(tensors, key=lambda one: (one.start, one.stop)):
        if tensor.start != end:
            what = "overlap" if tensor.start < end else "leave a gap"
            raise ValueError(f"the tensors {what} before {shown(tensor.name)}")
        end = tensor.stop
    if end != size:
        raise ValueError(f"{size:,} bytes where its header promises {end:,}")
    return tensors


def _tensor(name: str, entry: Any, first: int) -> StoredTensor:
    if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= entry.keys():
        raise ValueError(f"{shown(name)} lacks its dtype, shape or data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BITS:
        raise ValueError(f"{shown(name)} has the dtype {shown(dtype)}, which the format does not know")
    if not isinstance(shape, list) or len(shape) > MOST_SIDES or not all(_is_count(side) for side in shape):
        raise ValueError(f"{shown(name)} has the shape {shown(shape)}")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(_is_count(one) for one in offsets):
        raise ValueError(f"{shown(name)} has the data_offsets {shown(offsets)}")
    start, stop = offsets
    if 8 * (stop - start) != BITS[dtype] * math.prod(shape):
        raise ValueError(f"{shown(name)} of shape {shown(shape)} in {dtype} has the data_offsets {shown(offsets)}")
    return StoredTensor(name, dtype, tuple(shape), first + start, first + stop)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LARGEST_SIDE
