"""Folders that lie: each kind spoils a sound checkpoint in one way. What is said of each is its name."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.faults.made import CONFIG, TENSORS, in_shards, index, tensor_file

Spoil = Callable[[Path], object]
HUGE = 100 * 1024 * 1024


def config(**changes: Any) -> Spoil:
    return lambda folder: (folder / "config.json").write_text(json.dumps(CONFIG | changes))


def raw_config(text: bytes) -> Spoil:
    return lambda folder: (folder / "config.json").write_bytes(text)


def said_in_config(key: str, text: str) -> Spoil:
    """A value that JSON's own writer would not write: NaN, 1e999, a number of ten thousand digits."""
    without = {name: value for name, value in CONFIG.items() if name != key}
    return raw_config(f'{json.dumps(without)[:-1]}, "{key}": {text}}}'.encode())


def weights(content: bytes) -> Spoil:
    return lambda folder: (folder / "model.safetensors").write_bytes(content)


def header(**changes: Any) -> Spoil:
    """Tensor `a` with other claims."""
    return weights(tensor_file(TENSORS | {"a": TENSORS["a"] | changes}))


def named(value: Any) -> Spoil:
    """An index that names something else for tensor `a`."""

    def spoil(folder: Path) -> None:
        in_shards(folder)
        index({"a": value, "b": "model-2.safetensors"}, folder)

    return spoil


def raw_index(text: bytes) -> Spoil:
    def spoil(folder: Path) -> None:
        in_shards(folder)
        (folder / "model.safetensors.index.json").write_bytes(text)

    return spoil


def linked(name: str, target: str) -> Spoil:
    """A link in place of a file, to a real file outside the folder where `target` says so."""

    def spoil(folder: Path) -> None:
        (folder.parent / "outside").write_bytes((folder / name).read_bytes() if (folder / name).exists() else b"{}")
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(target)

    return spoil


def pipe(name: str) -> Spoil:
    def spoil(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)

    return spoil


def sparse(name: str, size: int) -> Spoil:
    """A file of many zeros that take no room on the disk."""

    def spoil(folder: Path) -> None:
        (folder / name).touch()
        os.truncate(folder / name, size)

    return spoil


def pickles(*names: str) -> Spoil:
    def spoil(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        for name in names:
            (folder / name).write_bytes(b"\x80\x04.")

    return spoil


def shard(change: Callable[[Path], object]) -> Spoil:
    def spoil(folder: Path) -> None:
        in_shards(folder)
        change(folder / "model-1.safetensors")

    return spoil


def beside(name: str, content: Any) -> Spoil:
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    return lambda folder: (folder / name).write_bytes(text)


DEEP = b"[" * 100_000 + b"]" * 100_000
YARN = {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 32}
SIZE_OF_A = 24

CHECKPOINTS: dict[str, Spoil] = {
    # config.json
    "config: absent": lambda folder: (folder / "config.json").unlink(),
    "config: empty": raw_config(b""),
    "config: half of one": raw_config(json.dumps(CONFIG).encode()[:90]),
    "config: no UTF-8": raw_config(b'{"model_type": "\xff\xfe"}'),
    "config: a list": raw_config(b"[1, 2]"),
    "config: a pointer of git-lfs": raw_config(b"version https://git-lfs.github.com/spec/v1\n"),
    "config: nested 100,000 deep": raw_config(DEEP),
    "config: nested deep in a key that is read": raw_config(
        json.dumps(CONFIG | {"rope_scaling": 0}).encode().replace(b'"rope_scaling": 0', b'"rope_scaling": ' + DEEP)
    ),
    "config: 100 MB of JSON": raw_config(b'{"a": "' + b"x" * HUGE + b'"}'),
    "config: ten million values in 20 MB": raw_config(b"[" + b"1," * 10_000_000 + b"1]"),
    "config: ten million lists in 30 MB": raw_config(b"[" + b"[]," * 10_000_000 + b"1]"),
    "config: a name twice with two values": raw_config(json.dumps(CONFIG).encode()[:-1] + b', "rope_theta": 5.0}'),
    "config: a pipe": pipe("config.json"),
    "config: a folder": lambda folder: ((folder / "config.json").unlink(), (folder / "config.json").mkdir()),
    "config: a link out of the folder": linked("config.json", "../outside"),
    "config: a link to itself": linked("config.json", "config.json"),
    "config: theta NaN": said_in_config("rope_theta", "NaN"),
    "config: theta infinite": said_in_config("rope_theta", "Infinity"),
    "config: theta 1e999": said_in_config("rope_theta", "1e999"),
    "config: theta of 10,000 digits": said_in_config("rope_theta", "1" + "0" * 9_999),
    "config: theta of 400 digits": said_in_config("rope_theta", "1" + "0" * 399),
    "config: theta a text": config(rope_theta="10000"),
    "config: theta true": config(rope_theta=True),
    "config: theta negative": config(rope_theta=-1.0),
    "config: theta 1": config(rope_theta=1),
    "config: window NaN": said_in_config("max_position_embeddings", "NaN"),
    "config: window huge": config(max_position_embeddings=10**30),
    "config: window no whole number": config(max_position_embeddings=64.5),
    "config: window zero": config(max_position_embeddings=0),
    "config: window a list": config(max_position_embeddings=[64]),
    "config: head_dim huge": config(head_dim=2**40),
    "config: head_dim odd": config(head_dim=7),
    "config: layers a text": config(num_hidden_layers="two"),
    "config: layers negative": config(num_hidden_layers=-2),
    "config: heads huge": config(num_attention_heads=10**20),
    "config: key heads a list": config(num_key_value_heads=[1]),
    "config: rope_scaling a text": config(rope_scaling="yarn"),
    "config: rope_parameters a list": config(rope_parameters=[1]),
    "config: a scaling that no one knows": config(rope_scaling={"rope_type": "../../evil", "factor": 2.0}),
    "config: a scaling with a key that no one knows": config(rope_scaling=YARN | {"surprise": 1}),
    "config: factor NaN": raw_config(json.dumps(CONFIG | {"rope_scaling": YARN | {"factor": float("nan")}}).encode()),
    "config: factor a list": config(rope_scaling=YARN | {"factor": [2]}),
    "config: factor huge": config(rope_scaling=YARN | {"factor": 1e300}),
    "config: beta NaN": raw_config(json.dumps(CONFIG | {"rope_scaling": YARN | {"beta_fast": float("nan")}}).encode()),
    "config: longrope of too few factors": config(
        rope_scaling={"rope_type": "longrope", "short_factor": [1.0], "long_factor": [1.0], "factor": 2.0}
    ),
    "config: longrope of factors that are none": config(
        rope_scaling={"rope_type": "longrope", "short_factor": ["1"] * 4, "long_factor": [0.0] * 4, "factor": 2.0}
    ),
    "config: original window NaN": raw_config(
        json.dumps(
            CONFIG | {"rope_scaling": YARN | {"original_max_position_embeddings": float("nan")}}
        ).encode()
    ),
    "config: no rotation at all": config(model_type="mamba"),
    "config: another file of weights": config(transformers_weights="other.safetensors.index.json"),
    "config: a file of weights outside": config(transformers_weights="../outside.safetensors"),
    "config: attention from the hub": config(attn_implementation="someone/kernel"),
    # weights
    "weights: absent": lambda folder: (folder / "model.safetensors").unlink(),
    "weights: a pickle": pickles("pytorch_model.bin"),
    "weights: pickles in shards": pickles("pytorch_model-1-of-2.bin", "pytorch_model-2-of-2.bin"),
    "weights: a pickle .pt": pickles("model.pt"),
    "weights: a pickle .pth": pickles("consolidated.00.pth"),
    "weights: a pipe": pipe("model.safetensors"),
    "weights: a link out of the folder": linked("model.safetensors", "../outside"),
    "weights: a link to nothing": linked("model.safetensors", "nowhere.safetensors"),
    "weights: empty": weights(b""),
    "weights: seven bytes": weights(bytes(7)),
    "weights: a pointer of git-lfs": weights(b"version https://git-lfs.github.com/spec/v1\n"),
    "weights: cut off": weights(tensor_file()[:-1]),
    "weights: longer than it says": weights(tensor_file() + b"x"),
    "header: longer than the file": weights(tensor_file(length=10_000)),
    "header: of 2^64 - 1 bytes": weights(tensor_file(length=2**64 - 1)),
    "header: of no bytes": weights(tensor_file(length=0)),
    "header: 100 MB of JSON": weights(tensor_file(b'{"a": "' + b"x" * HUGE + b'"}')),
    "header: eight million objects in 32 MB": weights(tensor_file(b'{"a": [' + b"{}," * 8_000_000 + b"{}]}")),
    "header: sparse, of 90 GB": sparse("model.safetensors", 90 * 10**9),
    "header: no UTF-8": weights(tensor_file(b'{"\xff": 1}')),
    "header: no object": weights(tensor_file(b"[1]")),
    "header: nested deep": weights(tensor_file(b'{"a": ' + DEEP + b"}")),
    "header: no tensors": weights(tensor_file({}, 0)),
    "header: metadata that is no text": weights(tensor_file(TENSORS | {"__metadata__": {"format": 1}})),
    "header: a name twice": weights(tensor_file(json.dumps(TENSORS).encode()[:-1] + b', "a": {}}')),
    "header: a tensor without a shape": weights(tensor_file({"a": {"dtype": "F32", "data_offsets": [0, 32]}})),
    "header: a tensor that is a list": weights(tensor_file({"a": [0, 32]})),
    "header: a dtype that is none": header(dtype="F33"),
    "header: a dtype that is a list": header(dtype=["F32"]),
    "header: a side below zero": header(shape=[-2, -3]),
    "header: a side of 10^30": header(shape=[10**30, 0]),
    "header: a side that is no whole number": header(shape=[2.0, 3]),
    "header: a thousand sides": header(shape=[1] * 1000 + [6]),
    "header: a shape that is larger than its bytes": header(shape=[2, 4]),
    "header: a shape whose product overflows": header(shape=[2**32, 2**32]),
    "header: offsets outside the file": weights(tensor_file({"a": TENSORS["a"] | {"data_offsets": [1000, 1024]}})),
    "header: offsets below zero": header(data_offsets=[-24, 0]),
    "header: offsets the wrong way round": header(data_offsets=[24, 0]),
    "header: three offsets": header(data_offsets=[0, 12, 24]),
    "header: offsets NaN": weights(tensor_file({"a": TENSORS["a"] | {"data_offsets": [0, float("nan")]}})),
    "header: tensors that overlap": header(shape=[8], data_offsets=[0, 32]),
    "header: a gap between tensors": weights(
        tensor_file(TENSORS | {"b": TENSORS["b"] | {"data_offsets": [32, 40]}}, 40)
    ),
    "header: tensors of no numbers": weights(
        tensor_file({"a": {"dtype": "F32", "shape": [0, 5], "data_offsets": [0, 0]}}, 0)
    ),
    # index
    "index: no JSON": raw_index(b"{"),
    "index: no weight_map": raw_index(b"{}"),
    "index: weight_map a list": raw_index(b'{"weight_map": ["model-1.safetensors"]}'),
    "index: empty": raw_index(b'{"weight_map": {}}'),
    "index: nested deep": raw_index(DEEP),
    "index: 100 MB of JSON": raw_index(b'{"weight_map": {"a": "' + b"x" * HUGE + b'"}}'),
    "index: a tensor twice in two files": raw_index(
        b'{"weight_map": {"a": "model-1.safetensors", "a": "model-2.safetensors", "b": "model-2.safetensors"}}'
    ),
    "index: a file above the folder": named("../outside.safetensors"),
    "index: a file by its whole path": named("/etc/outside.safetensors"),
    "index: a file in a folder of its own": named("more/model-1.safetensors"),
    "index: a file with a backslash": named("..\\outside.safetensors"),
    "index: a file with a zero byte": named("model-1\0.safetensors"),
    "index: a file of a thousand letters": named("x" * 1000 + ".safetensors"),
    "index: a pickle": named("pytorch_model.bin"),
    "index: a number": named(1),
    "index: a file that is missing": named("model-3.safetensors"),
    "index: the wrong file": named("model-2.safetensors"),
    "index: a tensor that is nowhere": lambda folder: (
        in_shards(folder),
        index({"a": "model-1.safetensors", "b": "model-2.safetensors", "c": "model-2.safetensors"}, folder),
    ),
    "index: a link out of the folder": lambda folder: (
        in_shards(folder),
        linked("model.safetensors.index.json", "../outside")(folder),
    ),
    "index: a pipe": lambda folder: (in_shards(folder), pipe("model.safetensors.index.json")(folder)),
    "shard: cut off": shard(lambda path: os.truncate(path, path.stat().st_size - 1)),
    "shard: gone": shard(lambda path: path.unlink()),
    "shard: a link out of the folder": shard(
        lambda path: (path.rename(path.parent.parent / "outside.safetensors"), path.symlink_to("../outside.safetensors"))
    ),
    "shard: another's tensor too": shard(
        lambda path: path.write_bytes((path.parent / "model-2.safetensors").read_bytes())
    ),
    # what lies beside
    "tokenizer: a link out of the folder": linked("tokenizer.json", "../outside"),
    "tokenizer: a link to nothing": linked("tokenizer.json", "/nowhere/tokenizer.json"),
    "tokenizer: a pipe": pipe("tokenizer.json"),
    "tokenizer: sparse, of 90 GB": sparse("tokenizer.json", 90 * 10**9),
    "tokenizer: read from elsewhere": beside("tokenizer_config.json", {"tokenizer_file": "/etc/passwd"}),
    "tokenizer: read from above": beside("tokenizer_config.json", {"vocab_file": "../outside"}),
    "tokenizer: one of several, above": beside(
        "tokenizer_config.json", {"fast_tokenizer_files": ["../tokenizer.5.0.0.json"]}
    ),
    "licence: a link out of the folder": linked("LICENSE", "/etc/passwd"),
    "adapter: one over another model": beside("adapter_config.json", {"base_model_name_or_path": "../outside"}),
    "trained_on: no list": beside("trained_on.json", {"version": 1, "documents": [1, 2]}),
    "trained_on: a link out of the folder": linked("trained_on.json", "../outside"),
    "trained_on: nested deep": beside("trained_on.json", DEEP),
    "record: of a subject that is none": beside(
        "run.json",
        {"version": 1, "command": "extend", "given": {}, "resolved": {"subject": [1]}, "ropes": {}, "seed": None,
         "results": []},
    ),
    "record: a theta that is none": beside(
        "run.json",
        {"version": 1, "command": "tune", "given": {}, "resolved": {"subject": {"theta": "x", "original": 64}},
         "ropes": {}, "seed": None, "results": []},
    ),
    "record: a link out of the folder": linked("run.json", "../outside"),
}  # fmt: skip
