"""All that decides how positions turn in one kind of layer."""

import math
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from ropewalk.errors import RopeError
from ropewalk.rope.frequencies import Frequencies
from ropewalk.rope.scalings import LongRope, Scaling, Unscaled

LARGEST_DIM = 65_536  # of a head; a number beyond it is a mistake, and its frequencies would fill the memory


@dataclass(frozen=True)
class Window:
    """Tokens the model was pretrained on, and tokens its config says it reads.

    >>> Window(2048, 8192).stretch
    4.0
    """

    original: int
    target: int

    def __post_init__(self) -> None:
        for name, tokens in (("original", self.original), ("target", self.target)):
            if not isinstance(tokens, int) or isinstance(tokens, bool) or not 1 <= tokens < 2**31:
                raise RopeError(
                    f"the {name} window is {str(tokens)[:40]}; a window is a whole number of tokens, from 1 to 2^31 - 1.\n"
                    "  Lengths of all runtimes are 32-bit numbers.\n"
                    "  Correct it where it was given: config.json, or --to."
                )

    @property
    def stretch(self) -> float:
        return self.target / self.original

    def at(self, length: int) -> "Window":
        """The same original window, read at `length` tokens; dynamic scalings depend on it."""
        return Window(self.original, length)


@dataclass(frozen=True, kw_only=True)
class RopeSpec:
    """Rotation of one kind of layer: theta, the rotated dimensions of a head, the window, and the scaling.

    Raises RopeError for a theta that is not above 1 or a rotary_dim that is not even and positive.
    """

    theta: float
    rotary_dim: int
    window: Window
    scaling: Scaling = field(default_factory=Unscaled)

    def __post_init__(self) -> None:
        if not 1 < self.theta <= 1e15:
            raise RopeError(
                f"rope_theta is {self.theta!r}; it must be above 1 and at most 1e15.\n"
                "  It is the base of the frequencies; LLaMA's is 10000.\n"
                "  Correct it where it was given: config.json, or the method's option."
            )
        if not 2 <= self.rotary_dim <= LARGEST_DIM or self.rotary_dim % 2:
            raise RopeError(
                f"rotary_dim is {self.rotary_dim}; rotation needs an even number of dimensions, from 2 to {LARGEST_DIM}.\n"
                "  Two dimensions of a head turn together; their number follows from head_dim and partial_rotary_factor.\n"
                "  Correct it where it was given: config.json, or --head-dim."
            )
        if isinstance(self.scaling, LongRope):
            for name in ("short_factor", "long_factor"):
                self._require_each_pair(name, len(getattr(self.scaling, name)))
        if not self._turns():
            raise RopeError(
                f"no rotation follows from {self.in_words()}.\n"
                "  Each pair must come out with a frequency above 0, and attention with a factor above 0.\n"
                "  One of these numbers is out of all proportion: correct it in config.json or in the method's options."
            )

    def _turns(self) -> bool:
        """Whether frequencies and factor are numbers that something can be turned and scaled by."""
        try:
            with np.errstate(all="ignore"):
                found = self.frequencies()
        except (ArithmeticError, ValueError):
            return False
        factor = found.attention_factor
        return bool(np.isfinite(found.inverse_F).all() and (found.inverse_F > 0).all()) and 0 < factor < math.inf

    def _require_each_pair(self, name: str, count: int) -> None:
        """One divisor would be taken for all pairs, without a word; other counts would fail in the midst of work."""
        if 2 * count != self.rotary_dim:
            raise RopeError(
                f"{name} has {count} numbers; with {self.rotary_dim} rotary dimensions there are {self.rotary_dim // 2} pairs.\n"
                "  LongRoPE divides the frequency of each pair by one of its own.\n"
                "  Give one number a pair, in config.json or as the method's option."
            )

    def frequencies(self) -> Frequencies:
        return self.scaling.frequencies(self.theta, self.rotary_dim, self.window.original, self.window.target)

    def in_words(self) -> str:
        """One line for people.

        >>> RopeSpec(theta=10000.0, rotary_dim=128, window=Window(2048, 2048)).in_words()
        'theta 10000, 64 pairs, window 2048, unscaled'
        """
        options = ", ".join(
            f"{f.name} {getattr(self.scaling, f.name)}"
            for f in fields(self.scaling)
            if getattr(self.scaling, f.name) != f.default and not isinstance(getattr(self.scaling, f.name), tuple)
        )
        scaling = "unscaled" if isinstance(self.scaling, Unscaled) else f"{self.scaling.rope_type} ({options})"
        window = f"{self.window.original}"
        if self.window.target != self.window.original:
            window += f" -> {self.window.target}"
        return f"theta {self.theta:.8g}, {self.rotary_dim // 2} pairs, window {window}, {scaling}"

    def for_record(self) -> dict[str, Any]:
        """Plain values for run.json, the frequencies included, so that a report needs no arithmetic."""
        frequencies = self.frequencies()
        return {
            "theta": self.theta,
            "rotary_dim": self.rotary_dim,
            "original_window": self.window.original,
            "window": self.window.target,
            "scaling": {"rope_type": self.scaling.rope_type} | scaling_fields(self.scaling),
            "inverse_frequencies": frequencies.inverse_F.tolist(),
            "attention_factor": frequencies.attention_factor,
        }


def scaling_fields(scaling: Scaling) -> dict[str, Any]:
    """The keys of a scaling that say something: every one but those that are None."""
    pairs = ((f.name, getattr(scaling, f.name)) for f in fields(scaling))
    return {name: list(value) if isinstance(value, tuple) else value for name, value in pairs if value is not None}
