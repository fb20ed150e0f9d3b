"""`ropewalk inspect`: a checkpoint's rotation in words and numbers, before and after a method. No torch."""

from pathlib import Path
from typing import Any

from ropewalk.checkpoint.folder import open_checkpoint
from ropewalk.checkpoint.subject import subject_of
from ropewalk.rope.frequencies import turns, wavelengths
from ropewalk.rope.methods import method_named
from ropewalk.rope.spec import RopeSpec


def inspect(model: str | Path, *, method: str | None = None, to: int | None = None) -> dict[str, Any]:
    """What the checkpoint's config says of its window and rotation, as plain values.

    With `method` and `to`, what `extend` would make of it, under "after". Raises RopewalkError as `extend` would.

    >>> inspect("pilot", method="yarn", to=1024)["after"]["in_words"]
    'theta 10000, 16 pairs, window 256 -> 1024, yarn (factor 4.0)'
    """
    checkpoint = open_checkpoint(model)
    rope = checkpoint.rope
    answer: dict[str, Any] = {
        "model": str(model),
        "model_type": checkpoint.config.get("model_type"),
        "parameters": checkpoint.parameters,
        "subject": subject_of(checkpoint),
        "now": _described(rope),
    }
    if to is not None:
        answer["after"] = _described(method_named(method or "pi")(rope, to))
    return answer


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
