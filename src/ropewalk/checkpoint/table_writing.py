"""A longer position table in a file of weights: that file is written anew, every other tensor in it byte for byte."""

import json
import os
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ropewalk.checkpoint.files import INDEX, WEIGHTS
from ropewalk.checkpoint.folder import Checkpoint, link_or_copy
from ropewalk.checkpoint.headers import stored_tensors
from ropewalk.checkpoint.inside import require_readable
from ropewalk.checkpoint.position_table import LearnedTable, resampled
from ropewalk.errors import CheckpointError
from ropewalk.record import write_json

_CHUNK = 2**24  # bytes copied at once
_DTYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": np.uint16}


def write_weights(folder: Path, checkpoint: Checkpoint, table: LearnedTable) -> None:
    """The checkpoint's weights in `folder` with a longer table: the file that holds it is new, all others are linked."""
    rewritten, tensor = file_with_table(checkpoint.folder, checkpoint.weight_files, table)
    for name in checkpoint.weight_files:
        if name != rewritten:
            size = max(tensor.stop for tensor in checkpoint.tensors[name])
            link_or_copy(checkpoint.folder / name, folder / name, size)
    require_readable(checkpoint.folder / rewritten)
    grown = write_stretched(checkpoint.folder / rewritten, folder / rewritten, tensor, table)
    if checkpoint.weight_files != (WEIGHTS,):
        index = json.loads((checkpoint.folder / INDEX).read_text(encoding="utf-8"))
        dtype = _header_of(folder / rewritten)[0][tensor]["dtype"]
        write_json(folder / INDEX, grown_index(index, grown, np.dtype(_DTYPES[dtype]).itemsize))


def file_with_table(folder: Path, names: tuple[str, ...], table: LearnedTable) -> tuple[str, str]:
    """Which of the weight files holds the table, and the tensor's name there. Raises CheckpointError for none, or two."""
    found = [
        (name, tensor)
        for name in names
        for tensor in _header_of(folder / name)[0]
        if tensor == table.kind.tensor or tensor.endswith(f".{table.kind.tensor}")
    ]
    if len(found) != 1:
        raise CheckpointError(
            f"{folder} holds {len(found)} tensors named {table.kind.tensor}, in {len(names)} files.\n"
            "  A model with learned positions has one table.\n"
            "  Fetch the checkpoint again."
        )
    return found[0]


def _header_of(path: Path) -> tuple[dict[str, Any], int]:
    """The header as it stands, and the byte where the tensors begin. Raises CheckpointError for a file that is not whole."""
    stored_tensors(path)  # what it claims is checked there
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        return json.loads(file.read(length)), 8 + length


def write_stretched(source: Path, destination: Path, tensor: str, table: LearnedTable) -> int:
    """Writes the file `source` anew at `destination` with its table resampled; every other tensor byte for byte.

    Gives how many bytes it grew by. Raises CheckpointError when the table is not of the size that config.json says, or in
    a number format that cannot be resampled. `source` is only read.
    """
    header, start = _header_of(source)
    entry, offset = header[tensor], table.kind.offset
    shape, dtype = entry["shape"], entry["dtype"]
    if len(shape) != 2 or shape[0] != table.window.original + offset or dtype not in _DTYPES:
        raise CheckpointError(
            f"{tensor} in {source} is {dtype} of {shape}.\n"
            f"  config.json says {table.window.original} positions, so {table.window.original + offset} rows of floating "
            "point numbers were expected.\n"
            "  Fetch the checkpoint again."
        )
    with source.open("rb") as old:
        first, end = entry["data_offsets"]
        old.seek(start + first)
        rows = np.frombuffer(old.read(end - first), dtype=np.dtype(_DTYPES[dtype]).newbyteorder("<")).reshape(shape)
        new = _stored(resampled(_as_float(rows, dtype), table.window.target, offset), dtype)
        changed = _moved(header, tensor, len(new), [table.window.target + offset, shape[1]])
        with destination.open("wb") as file:
            text = json.dumps(changed, separators=(",", ":")).encode()
            text += b" " * (-len(text) % 8)  # what follows begins at a multiple of eight, as safetensors writes it
            file.write(len(text).to_bytes(8, "little") + text)
            _copy(old, file, start, first)
            file.write(new)
            _copy(old, file, start + end, os.fstat(old.fileno()).st_size - start - end)
    return len(new) - (end - first)


def grown_index(index: dict[str, Any], grown: int, itemsize: int) -> dict[str, Any]:
    """The index of weight files with its totals after a file grew by so many bytes."""
    totals = dict(index.get("metadata") or {})
    for key, more in (("total_size", grown), ("total_parameters", grown // itemsize)):
        if isinstance(totals.get(key), int | float):
            totals[key] += more
    return index | {"metadata": totals}


def _moved(header: dict[str, Any], tensor: str, size: int, shape: list[int]) -> dict[str, Any]:
    """The header with one tensor of another size, and those after it further back."""
    first, end = header[tensor]["data_offsets"]
    more = size - (end - first)
    changed = dict(header)
    for name, entry in header.items():
        if name == tensor:
            changed[name] = entry | {"shape": shape, "data_offsets": [first, first + size]}
        elif name != "__metadata__" and entry["data_offsets"][0] >= end:
            changed[name] = entry | {"data_offsets": [at + more for at in entry["data_offsets"]]}
    return changed


def _as_float(rows: np.ndarray, dtype: str) -> np.ndarray:
    """bfloat16 is the upper half of a float32; numpy has no type for it."""
    return (rows.astype("<u4") << 16).view("<f4") if dtype == "BF16" else rows


def _stored(rows: np.ndarray, dtype: str) -> bytes:
    """In the format the table was in, rounded to the nearest (bfloat16: ties to even)."""
    if dtype != "BF16":
        return rows.astype(np.dtype(_DTYPES[dtype]).newbyteorder("<")).tobytes()
    bits = rows.astype("<f4").view("<u4").astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2").tobytes()


def _copy(source: BinaryIO, destination: BinaryIO, start: int, count: int) -> None:
    source.seek(start)
    while count > 0 and (chunk := source.read(min(_CHUNK, count))):
        destination.write(chunk)
        count -= len(chunk)
