"""A checkpoint's tensors under llama.cpp's names, read one at a time where they lie. No torch."""

import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ropewalk.checkpoint.folder import Checkpoint
from ropewalk.checkpoint.values import require
from ropewalk.errors import CheckpointError
from ropewalk.exporting.llama_cpp import Family, count, gguf_package
from ropewalk.names import unknown

DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}

_AS_READ = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")}  # numpy has no bfloat16
_COMPUTED = ("rotary_emb.inv_freq",)  # old checkpoints store what config.json says


@dataclass(frozen=True)
class Placed:
    """One tensor: where it lies, and under which name, in which dtype and order of rows it goes out."""

    name: str
    path: Path
    offset: int
    shape: tuple[int, ...]
    stored: str  # F32, F16 or BF16, the names of safetensors and of GGUF
    dtype: str
    heads: int | None = None  # rows of each head are reordered; None if not

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * _AS_READ[self.dtype].itemsize

    def numbers(self) -> np.ndarray:
        """The tensor as it goes out; bfloat16 as its bits. Mapped, not loaded, where nothing changes."""
        raw = np.memmap(self.path, _AS_READ[self.stored], "r", self.offset, self.shape)
        out = raw if self.stored == self.dtype else self._converted(raw)
        return out if self.heads is None else neighbouring(out, self.heads)

    def _converted(self, raw: np.ndarray) -> np.ndarray:
        wide = (raw.astype(np.uint32) << 16).view(np.float32) if self.stored == "BF16" else raw.astype(np.float32)
        if self.dtype == "F32":
            return wide
        if self.dtype == "BF16":
            gguf = gguf_package()
            return gguf.quants.quantize(wide, gguf.GGMLQuantizationType.BF16).view(_AS_READ["BF16"])
        with np.errstate(over="ignore"):
            narrow = wide.astype(np.float16)
        if not np.isfinite(narrow).all():
            raise CheckpointError(
                f"{self.name} has numbers beyond float16, up to {np.abs(wide).max():g}.\n"
                "  float16 ends at 65504.\n"
                "  Store it as bfloat16 or float32."
            )
        return narrow


def neighbouring(rows: np.ndarray, heads: int) -> np.ndarray:
    """Rows of each head in the order (0, h, 1, h + 1, ...) with h half a head, so that a pair's two rows are neighbours.

    >>> neighbouring(np.arange(8), heads=2).tolist()
    [0, 2, 1, 3, 4, 6, 5, 7]
    """
    halves = rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(rows.shape)


def placed_tensors(checkpoint: Checkpoint, family: Family, dtype: str | None) -> list[Placed]:
    """Every tensor that goes out, embeddings first. `dtype` None keeps each matrix's own; vectors go out in float32.

    Raises CheckpointError for a tensor that llama.cpp has no place for, for one it misses, and for other dtypes.
    """
    if dtype is not None and dtype not in DTYPES:
        raise CheckpointError(unknown("dtype", dtype, DTYPES))
    entries = [(checkpoint.folder / file, tensor) for file, own in checkpoint.tensors.items() for tensor in own]
    layers, heads = _layers(checkpoint, len(entries)), count(checkpoint, "num_attention_heads")
    gguf = gguf_package()
    architecture = gguf.MODEL_ARCH[family.architecture.upper()]
    names = gguf.get_tensor_name_map(architecture, layers)
    tied = bool(checkpoint.config.get("tie_word_embeddings", False))
    placed = []
    for path, tensor in entries:
        source = tensor.name
        if source.endswith(_COMPUTED) or (tied and source == "lm_head.weight"):
            continue
        name = names.get_name(source, try_suffixes=(".weight", ".bias"))
        if name is None or not _has_place(name, family):
            raise CheckpointError(
                f"{path} holds {source}, for which llama.cpp has no place in its {family.architecture} architecture.\n"
                "  Leaving it out would change the model.\n"
                "  Use llama.cpp's own convert_hf_to_gguf.py."
            )
        stored, shape, sides = tensor.dtype, tensor.shape, len(tensor.shape)
        if stored not in _AS_READ:
            raise CheckpointError(
                f"{source} in {path} is stored as {stored}.\n"
                f"  Read here: {', '.join(DTYPES)}.\n"
                "  Convert the checkpoint to one of these first."
            )
        wanted = "F32" if sides < 2 else stored if dtype is None else DTYPES[dtype]
        reordered = None
        if family.interleaved and re.search(r"\.attn_[qk]\.", name):
            reordered = heads if ".attn_q." in name else shape[0] // checkpoint.rope.rotary_dim
            _require_whole_heads(source, shape[0], reordered)
        placed.append(Placed(name, path, tensor.start, shape, stored, wanted, reordered))
    _require_all({tensor.name for tensor in placed}, family, layers, tied, checkpoint)
    return sorted(placed, key=_in_order)


def _layers(checkpoint: Checkpoint, tensors: int) -> int:
    """How many layers config.json counts. Each has tensors of its own, so that no number makes the work endless."""
    layers, source = count(checkpoint, "num_hidden_layers"), str(checkpoint.folder / "config.json")
    require(layers < tensors, layers, "num_hidden_layers", source, f"fewer than the {tensors} tensors that are stored")
    return layers


def _has_place(name: str, family: Family) -> bool:
    if not name.startswith("blk."):
        return name in ("token_embd.weight", "output_norm.weight", "output.weight")
    part, kind = name.split(".")[2:]
    return part in (family.weights if kind == "weight" else family.biases)


def _require_all(names: set[str], family: Family, layers: int, tied: bool, checkpoint: Checkpoint) -> None:
    needed = {"token_embd.weight", "output_norm.weight"} | (set() if tied else {"output.weight"})
    needed |= {f"blk.{layer}.{part}.weight" for layer in range(layers) for part in family.weights}
    missing = sorted(needed - names)
    if missing:
        raise CheckpointError(
            f"{checkpoint.folder} lacks {len(missing)} of the {len(needed)} tensors of such a model: "
            f"{', '.join(missing[:3])} in llama.cpp's names.\n"
            "  Its config.json asks for them (num_hidden_layers, tie_word_embeddings).\n"
            "  Fetch the checkpoint again."
        )


def _require_whole_heads(source: str, rows: int, heads: int) -> None:
    if not heads or rows % (2 * heads):
        raise CheckpointError(
            f"{source} has {rows} rows, which are not {heads} heads of an even width.\n"
            "  Expected whole heads, from num_attention_heads and head_dim in config.json.\n"
            "  Fetch the checkpoint again."
        )


def _in_order(tensor: Placed) -> tuple[int, int, str]:
    """Embeddings, layers by number, the rest."""
    if tensor.name.startswith("blk."):
        return (1, int(tensor.name.split(".")[1]), tensor.name)
    return (0 if tensor.name.startswith("token_embd") else 2, 0, tensor.name)
