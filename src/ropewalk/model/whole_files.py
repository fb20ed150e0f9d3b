"""The weights of a divided model as an ordinary checkpoint: safetensors files and their index, as one process writes them.

Tensors are gathered one at a time, and the first rank appends each to its file: no rank holds more than a tensor.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from huggingface_hub import split_torch_state_dict_into_shards

from ropewalk.checkpoint.files import INDEX
from ropewalk.model.load import quiet_libraries
from ropewalk.model.ranks import Ranks
from ropewalk.model.sharding import local, whole
from ropewalk.model.view import VIEWS

FILE_SIZE = "50GB"  # transformers' own limit of a file
_DTYPES = {torch.float64: "F64", torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}


def write_whole(model: Any, folder: Path, dtype: torch.dtype, ranks: Ranks, file_size: str = FILE_SIZE) -> None:
    """Writes the files of all weights, cast to `dtype`, into `folder`. Every rank must take part; the first writes.

    Families whose files transformers names otherwise than their modules are gathered whole by the first rank, and
    written by transformers. Raises OSError when the disk does, on all ranks but the first as FailedElsewhere.
    """
    if model.config.model_type not in VIEWS:
        state = cast(model.state_dict(), lambda tensor: _on_first(tensor, dtype, ranks))
        with quiet_libraries():
            ranks.first(lambda: model.save_pretrained(folder, state_dict=state))
        return
    tensors = dict(model.named_parameters())
    empty = {name: torch.empty(t.shape, dtype=dtype, device="meta") for name, t in tensors.items()}
    split = split_torch_state_dict_into_shards(
        empty, filename_pattern="model{suffix}.safetensors", max_shard_size=file_size
    )
    for file_name, names in split.filename_to_tensors.items():
        _write_file(folder / file_name, {name: tensors[name] for name in sorted(names)}, dtype, ranks)
    if split.is_sharded:
        counts = {"total_parameters": model.num_parameters(), **split.metadata}
        index = {"metadata": counts, "weight_map": split.tensor_to_filename}
        text = json.dumps(index, indent=2, sort_keys=True) + "\n"
        ranks.first(lambda: (folder / INDEX).write_text(text, encoding="utf-8"))


def cast(state: Mapping[str, Any], made: Callable[[Any], Any]) -> dict[str, Any]:
    """What `made` gives for each tensor; tied ones stay one, for transformers saves those once."""
    done: dict[tuple[int, torch.Size], Any] = {}
    new: dict[str, Any] = {}
    for name, tensor in state.items():
        key = (local(tensor).data_ptr() or id(tensor), tensor.shape)
        if key not in done:
            done[key] = made(tensor)
        new[name] = done[key]
    return new


def _write_file(path: Path, tensors: Mapping[str, Any], dtype: torch.dtype, ranks: Ranks) -> None:
    file = ranks.first(lambda: _begun(path, tensors, dtype))
    try:
        for tensor in tensors.values():
            gathered = _on_first(tensor, dtype, ranks)
            ranks.first(lambda gathered=gathered: _append(file, gathered))
    finally:
        if file is not None:
            file.close()


def _begun(path: Path, tensors: Mapping[str, Any], dtype: torch.dtype) -> BinaryIO:
    """The file with its header: https://huggingface.co/docs/safetensors, Format."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, tensor in tensors.items():
        end = at + tensor.numel() * dtype.itemsize
        header[name] = {"dtype": _DTYPES[dtype], "shape": list(tensor.shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    file = path.open("wb", buffering=0)
    file.write(len(text).to_bytes(8, "little") + text)
    return file


def _append(file: BinaryIO | None, tensor: torch.Tensor | None) -> None:
    assert file is not None and tensor is not None
    numbers: memoryview = tensor.contiguous().view(-1).view(torch.uint8).numpy().data
    while numbers:  # one call writes 2 GiB at most
        numbers = numbers[file.write(numbers) :]


def _on_first(tensor: Any, dtype: torch.dtype, ranks: Ranks) -> torch.Tensor | None:
    gathered = whole(tensor.detach())
    return gathered.to("cpu", dtype) if ranks.is_first else None
