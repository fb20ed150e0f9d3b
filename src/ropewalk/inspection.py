"""`ropewalk inspect`: a checkpoint's rotation in words and numbers, before and after a method. No torch."""

from pathlib import Path
from typing import Any

from ropewalk.checkpoint.families import layer_notes
from ropewalk.checkpoint.folder import open_checkpoint
from ropewalk.checkpoint.layers import require_layers
from ropewalk.checkpoint.rope_blocks import SIDES, text_section
from ropewalk.checkpoint.rope_config import contradictions
from ropewalk.checkpoint.subject import subject_of
from ropewalk.checkpoint.values import count
from ropewalk.extension import planned_extension
from ropewalk.rope.frequencies import turns, wavelengths
from ropewalk.rope.spec import RopeSpec


def inspect(
    model: str | Path,
    *,
    method: str | None = None,
    to: int | None = None,
    options: dict[str, Any] | None = None,
    start: str = "here",
) -> dict[str, Any]:
    """What the checkpoint's config says of its window and rotation, as plain values.

    With `method` and `to`, what `extend` would make of it, under "after". Raises RopewalkError as `extend` would.

    >>> inspect("pilot", method="yarn", to=1024)["after"]["in_words"]
    'theta 10000, 16 pairs, window 256 -> 1024, yarn (factor 4.0)'
    """
    checkpoint = open_checkpoint(model)
    require_layers(checkpoint)
    rope = checkpoint.rope
    answer: dict[str, Any] = {
        "model": str(model),
        "model_type": checkpoint.config.get("model_type"),
        "parameters": checkpoint.parameters,
        "subject": subject_of(checkpoint),
        "now": _described(rope),
        "layers": layer_notes(text_section(checkpoint.config)),
        "contradictions": contradictions(checkpoint.config, rope),
    }
    lengths = [rope.window.target] if to is None else [rope.window.target, to]
    answer["cost"] = [_cost(text_section(checkpoint.config), checkpoint.parameters, n) for n in lengths]
    if to is not None:
        plan = planned_extension(model, to, method or "pi", options, start)
        assert isinstance(plan.after, RopeSpec)  # as the model rotates
        answer["after"] = _described(plan.after) | {"written_as": plan.form}
    return answer


def _cost(config: dict[str, Any], parameters: int, length: int) -> dict[str, Any]:
    """What reading one text of `length` tokens takes: the KV cache at 16 bits, and attention's work beside the rest.

    Attention multiplies 2 L^2 D numbers a layer (causal: half of queries by keys, half of weights by values), everything
    else about 2 L for every parameter. Sliding windows and latent caches, which save some of it, are not counted.
    """
    said = {name: count(config, keys, "config.json") for name, keys in SIDES.items()}
    heads, layers = said["heads"] or 1, said["layers"]
    head_dim, key_heads = said["head_dim"] or said["hidden"] // heads, said["key_heads"] or heads
    attention = 2 * length**2 * heads * head_dim * layers
    return {
        "length": length,
        "kv_cache_bytes": 2 * 2 * layers * key_heads * head_dim * length,
        "attention_share": attention / (2 * length * parameters),
    }


def _described(rope: RopeSpec) -> dict[str, Any]:
    frequencies = rope.frequencies()
    lengths = wavelengths(frequencies.inverse_F)
    turned = turns(frequencies.inverse_F, rope.window.target)
    return rope.for_record() | {
        "in_words": rope.in_words(),
        "pairs": [
            {"pair": j, "wavelength": float(lengths[j]), "turns_in_window": float(turned[j])}
            for j in range(len(lengths))
        ],
    }
