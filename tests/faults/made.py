"""Small folders made by hand, byte by byte: a checkpoint that is sound until it is spoiled, and a record."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

CONFIG: dict[str, Any] = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 24, "intermediate_size": 40,
    "num_hidden_layers": 2, "num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 8, "vocab_size": 300,
    "max_position_embeddings": 64, "rope_theta": 10000.0, "rope_scaling": None, "dtype": "float32",
}  # fmt: skip

TENSORS: dict[str, dict[str, Any]] = {
    "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
    "b": {"dtype": "BF16", "shape": [4], "data_offsets": [24, 32]},
}


def tensor_file(header: Any = None, data: int = 32, length: int | None = None) -> bytes:
    """A safetensors file. `header` may be an object or the text itself; `length` is what it says of its header."""
    text = header if isinstance(header, bytes) else json.dumps(TENSORS if header is None else header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + bytes(data)


def checkpoint(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "model.safetensors").write_bytes(tensor_file())
    (folder / "tokenizer.json").write_text("{}")
    (folder / "tokenizer_config.json").write_text('{"model_max_length": 64}')
    return folder


def in_shards(folder: Path) -> None:
    """The same weights in two files with an index."""
    (folder / "model.safetensors").unlink()
    for number, name in ((1, "a"), (2, "b")):
        size = TENSORS[name]["data_offsets"][1] - TENSORS[name]["data_offsets"][0]
        entry = TENSORS[name] | {"data_offsets": [0, size]}
        (folder / f"model-{number}.safetensors").write_bytes(tensor_file({name: entry}, size))
    index({"a": "model-1.safetensors", "b": "model-2.safetensors"}, folder)


def index(names: Any, folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))


def state_of(folder: Path) -> dict[str, str]:
    """Every name below a folder, with what tells its content from another."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = f"-> {os.readlink(path)}"
        elif path.is_file():
            big = path.stat().st_size > 2**24
            found[name] = str(path.stat().st_size) if big else hashlib.sha256(path.read_bytes()).hexdigest()
        else:
            found[name] = "folder or pipe"
    return found
