"""What llama.cpp reads of a model: its name for the family, hyperparameters, and the rotation as keys or divisors.

From llama.cpp's source as shipped with llama-cpp-python 0.3.36. Of the keys of a rotation, every family here reads
freq_base, scaling.type (linear, yarn), scaling.factor, scaling.original_context_length and scaling.attn_factor. None of
them reads the yarn betas, whose defaults are 32 and 1, nor yarn_attn_factor. Only the llama graph divides its
frequencies by the tensor `rope_freqs.weight`; those of qwen2 and qwen3 have no place for it.
Shape letters: F = rotary pairs.
"""

import math
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from ropewalk.checkpoint.folder import Checkpoint
from ropewalk.checkpoint.values import number, whole
from ropewalk.errors import CheckpointError, OutputError, RopeError
from ropewalk.rope.frequencies import Frequencies, base_frequencies
from ropewalk.rope.scalings import DynamicNtk, Linear, LongRope, Unscaled, Yarn, pair_turning, yarn_attention_factor
from ropewalk.rope.spec import RopeSpec

Keys = dict[str, int | float | str]

BETAS = (32.0, 1.0)
READ_BACK = 1e-5  # relative; keys and divisors are float32, and theta's rounding grows with the exponent
DIVISORS = "rope_freqs.weight"
SLIDING_WINDOW = 4096  # transformers' default where the key is absent

_ATTENTION = ("attn_q", "attn_k", "attn_v")
_FEED_FORWARD = ("ffn_gate", "ffn_up", "ffn_down")
_EVERY_LAYER = ("attn_norm", *_ATTENTION, "attn_output", "ffn_norm", *_FEED_FORWARD)


@dataclass(frozen=True)
class Family:
    """How llama.cpp treats one model_type of transformers."""

    architecture: str  # prefix of its keys
    weights: tuple[str, ...]  # of every layer, in llama.cpp's names
    biases: tuple[str, ...]  # it loads a bias of these only
    interleaved: bool = False  # rotates neighbours (2j, 2j + 1), where transformers rotates (j, j + head_dim / 2)
    reads_divisors: bool = False


_LLAMA = Family(
    "llama", _EVERY_LAYER, (*_ATTENTION, "attn_output", *_FEED_FORWARD), interleaved=True, reads_divisors=True
)
FAMILIES = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": Family("qwen2", _EVERY_LAYER, _ATTENTION),
    "qwen3": Family("qwen3", (*_EVERY_LAYER, "attn_q_norm", "attn_k_norm"), _ATTENTION),
}


@dataclass(frozen=True, eq=False)
class Rotation:
    """A rotation as llama.cpp takes it: keys without their prefix, and one divisor a pair where keys cannot say it."""

    keys: Keys
    divisors_F: np.ndarray | None = None


def gguf_package() -> ModuleType:
    """The package that reads and writes GGUF. Raises OutputError when it is not installed."""
    try:
        import gguf
    except ImportError:
        raise OutputError(
            "the package gguf is not installed.\n"
            "  GGUF files are written through it; it is an optional extra.\n"
            "  Install it: pip install 'ropewalk[gguf]'."
        ) from None
    return gguf


def family_of(checkpoint: Checkpoint) -> Family:
    """How llama.cpp treats this checkpoint. Raises CheckpointError when it would not compute what transformers does."""
    config = checkpoint.config
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        raise CheckpointError(
            f"cannot export the family {model_type!r} to GGUF.\n"
            f"  Covered: {', '.join(FAMILIES)}.\n"
            "  Use llama.cpp's own convert_hf_to_gguf.py, and check that the scaling of this window is in its output."
        )
    activation = config.get("hidden_act", "silu")
    if activation != "silu":
        raise _not_computed(f"hidden_act {activation!r}", "llama.cpp computes silu in this family")
    if config.get("quantization_config"):
        raise _not_computed(
            "quantized weights", "only float32, float16 and bfloat16 are read here", "Dequantize first."
        )
    slid = _sliding_window(checkpoint)
    if slid is not None and slid < checkpoint.rope.window.target:
        raise _not_computed(
            f"a sliding window of {slid} tokens, below the window of {checkpoint.rope.window.target}",
            "llama.cpp attends to the whole window in this family",
            "If the whole window is meant, set sliding_window to null in config.json.",
        )
    return FAMILIES[model_type]


def hyperparameters(checkpoint: Checkpoint, shapes: dict[str, tuple[int, ...]]) -> Keys:
    """Sides and counts under llama.cpp's keys, from the tensors themselves: `shapes` are under llama.cpp's names."""
    heads = count(checkpoint, "num_attention_heads")
    vocabulary, hidden = shapes["token_embd.weight"]
    q_rows, k_rows = shapes["blk.0.attn_q.weight"][0], shapes["blk.0.attn_k.weight"][0]
    head_dim = q_rows // heads
    if head_dim * heads != q_rows or head_dim != checkpoint.rope.rotary_dim or k_rows % head_dim:
        raise _not_computed(
            f"{heads} heads over {q_rows} rows of queries and {k_rows} of keys, with {checkpoint.rope.rotary_dim} "
            "rotated dimensions",
            "llama.cpp rotates whole heads of equal width in this family",
        )
    if checkpoint.config["model_type"] == "qwen2" and q_rows != hidden:
        raise _not_computed(
            f"{q_rows} rows of queries and {hidden} hidden sides", "llama.cpp wants them equal in qwen2"
        )
    return {
        "vocab_size": vocabulary,
        "block_count": count(checkpoint, "num_hidden_layers"),
        "embedding_length": hidden,
        "feed_forward_length": shapes["blk.0.ffn_gate.weight"][0],
        "attention.head_count": heads,
        "attention.head_count_kv": k_rows // head_dim,
        "attention.key_length": head_dim,
        "attention.value_length": head_dim,
        "attention.layer_norm_rms_epsilon": _epsilon(checkpoint),
    }


def carried(rope: RopeSpec, family: Family) -> Rotation:
    """The rotation as this family's loader takes it. Raises RopeError when it cannot be had there."""
    scaling, wanted = rope.scaling, rope.frequencies()
    keys: Keys = {
        "context_length": rope.window.target,
        "rope.dimension_count": rope.rotary_dim,
        "rope.freq_base": rope.theta,
    }
    tempered = wanted.attention_factor  # factors may be whole numbers in config.json; the loader wants floats
    divisors_F = None
    if isinstance(scaling, Linear):
        keys |= {"rope.scaling.type": "linear", "rope.scaling.factor": float(scaling.factor)}
    elif isinstance(scaling, Yarn) and (scaling.beta_fast, scaling.beta_slow, scaling.truncate) == (*BETAS, True):
        keys |= {
            "rope.scaling.type": "yarn",
            "rope.scaling.factor": float(scaling.factor),
            "rope.scaling.original_context_length": rope.window.original,
            "rope.scaling.yarn_beta_fast": BETAS[0],
            "rope.scaling.yarn_beta_slow": BETAS[1],
        }
        tempered /= yarn_attention_factor(scaling.factor)  # llama.cpp multiplies by it unasked
    elif not isinstance(scaling, Unscaled):
        _require_divisors(rope, family)
        divisors_F = (base_frequencies(rope.theta, rope.rotary_dim) / wanted.inverse_F).astype(np.float32)
    if not math.isclose(tempered, 1.0, rel_tol=1e-9):
        keys["rope.scaling.attn_factor"] = float(tempered)
    return Rotation(keys, divisors_F)


def as_read(keys: dict[str, Any], divisors_F: np.ndarray | None = None) -> Frequencies:
    """What llama.cpp makes of these keys (`rope_yarn` in its CPU backend), in float64."""
    theta, rotary_dim = keys["rope.freq_base"], keys["rope.dimension_count"]
    factor, attention_factor = keys.get("rope.scaling.factor", 1.0), keys.get("rope.scaling.attn_factor", 1.0)
    fast_F = base_frequencies(theta, rotary_dim) / (1.0 if divisors_F is None else divisors_F)
    slow_F = fast_F / factor
    if keys.get("rope.scaling.type", "linear") != "yarn":
        return Frequencies(slow_F, attention_factor)
    original = keys["rope.scaling.original_context_length"]
    low, high = (pair_turning(beta, theta, rotary_dim, original) for beta in BETAS)
    low, high = max(math.floor(low), 0), min(math.ceil(high), rotary_dim - 1)
    keep_F = 1 - np.clip((np.arange(rotary_dim // 2) - low) / max(0.001, high - low), 0, 1)
    return Frequencies(slow_F * (1 - keep_F) + fast_F * keep_F, attention_factor * yarn_attention_factor(factor))


def same_rotation(one: Frequencies, other: Frequencies) -> bool:
    return np.allclose(one.inverse_F, other.inverse_F, rtol=READ_BACK, atol=0) and math.isclose(
        one.attention_factor, other.attention_factor, rel_tol=READ_BACK
    )


def count(checkpoint: Checkpoint, key: str) -> int:
    """A count from config.json. Raises CheckpointError when it is not one."""
    return whole(checkpoint.config.get(key), key, _source(checkpoint))


def _epsilon(checkpoint: Checkpoint) -> float:
    """What keeps a norm from dividing by zero; transformers' own where config.json does not say it."""
    said = checkpoint.config.get("rms_norm_eps", 1e-6)
    return float(number(said, "rms_norm_eps", _source(checkpoint), "a number above 0", above=0))


def _source(checkpoint: Checkpoint) -> str:
    return str(checkpoint.folder / "config.json")


def _require_divisors(rope: RopeSpec, family: Family) -> None:
    """Raises RopeError where one divisor a pair cannot carry this scaling."""
    scaling = rope.scaling
    if isinstance(scaling, DynamicNtk):
        raise RopeError(
            f"cannot export dynamic scaling (factor {scaling.factor:g}) to GGUF: it grows with the length of the input.\n"
            "  llama.cpp rotates alike at every length.\n"
            "  Freeze it first: ropewalk extend with --method freeze, and export what that makes."
        )
    if isinstance(scaling, LongRope) and scaling.short_factor != scaling.long_factor:
        raise RopeError(
            "cannot export longrope whose short and long factors differ to GGUF.\n"
            f"  A GGUF file of the {family.architecture} architecture carries one divisor a pair for every length.\n"
            "  Start from a checkpoint whose two lists are equal, as ropewalk writes them."
        )
    if not family.reads_divisors:
        raise RopeError(
            f"cannot export {rope.scaling.rope_type} as set here to GGUF for {family.architecture}: {rope.in_words()}.\n"
            "  llama.cpp reads unscaled, linear and yarn (betas 32 and 1, rounded ends) there; other scalings go by one "
            "divisor a pair, which its graph of this architecture does not use.\n"
            "  Extend the base checkpoint with --method pi, ntk or yarn instead."
        )


def _sliding_window(checkpoint: Checkpoint) -> int | None:
    """Tokens that some layer is limited to; None if every layer reads the whole window."""
    config = checkpoint.config
    kinds = config.get("layer_types")
    slides = config.get("use_sliding_window") and (not isinstance(kinds, list) or "sliding_attention" in kinds)
    if config["model_type"] != "mistral" and not (config["model_type"] in ("qwen2", "qwen3") and slides):
        return None
    said = config.get("sliding_window", SLIDING_WINDOW)
    return None if said is None else whole(said, "sliding_window", _source(checkpoint))


def _not_computed(
    what: str, reason: str, remedy: str = "Use llama.cpp's own convert_hf_to_gguf.py."
) -> CheckpointError:
    return CheckpointError(f"cannot export this checkpoint to GGUF: it has {what}.\n  Reason: {reason}.\n  {remedy}")
