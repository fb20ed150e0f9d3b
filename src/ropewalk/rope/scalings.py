"""What a published config.json can say about scaled rotation: vocabulary, no decisions (those are `methods`).

Each scaling is a frozen dataclass whose fields are its own keys in config.json, plus `frequencies`, a pure function.
Differs from transformers: float64 instead of float32; `original` and `target` windows are arguments, not config
attributes that mean different things for different types.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np

from ropewalk.rope.frequencies import Frequencies, base_frequencies, turns


class Scaling(Protocol):
    """A frozen dataclass of one rope_type. `frequencies` takes the windows in tokens: original, and at the target."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    rope_type: ClassVar[str]

    def frequencies(self, theta: float, rotary_dim: int, original: int, target: int) -> Frequencies: ...


@dataclass(frozen=True)
class Unscaled:
    """Rotation as pretrained."""

    rope_type: ClassVar[str] = "default"

    def frequencies(self, theta: float, rotary_dim: int, original: int, target: int) -> Frequencies:
        return Frequencies(base_frequencies(theta, rotary_dim))


@dataclass(frozen=True)
class Linear:
    """Position Interpolation: every pair slowed by `factor`, the same as dividing positions by it.

    f'(x, m) = f(x, m L / L') (arXiv 2306.15595, eq. 4), with factor = L' / L.
    """

    factor: float
    rope_type: ClassVar[str] = "linear"

    def frequencies(self, theta: float, rotary_dim: int, original: int, target: int) -> Frequencies:
        return Frequencies(base_frequencies(theta, rotary_dim) / self.factor)


@dataclass(frozen=True)
class DynamicNtk:
    """NTK-aware scaling that grows with the length of the input. Read, never written: cached keys keep an older theta.

    theta' = theta (factor l / L - (factor - 1))^(d / (d - 2)) for l > L.
    """

    factor: float
    rope_type: ClassVar[str] = "dynamic"

    def frequencies(self, theta: float, rotary_dim: int, original: int, target: int) -> Frequencies:
        return Frequencies(base_frequencies(self.grown_theta(theta, rotary_dim, original, target), rotary_dim))

    def grown_theta(self, theta: float, rotary_dim: int, original: int, length: int) -> float:
        """Theta for an input of `length` tokens."""
        stretch = self.factor * max(length, original) / original - (self.factor - 1)
        return theta * stretch ** (rotary_dim / (rotary_dim - 2))


@dataclass(frozen=True)
class Llama3:
    """Llama 3.1: pairs that turn often in the original window are kept, those that turn seldom divided by `factor`."""

    factor: float
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    rope_type: ClassVar[str] = "llama3"

    def frequencies(self, theta: float, rotary_dim: int, original: int, target: int) -> Frequencies:
        inverse_F = base_frequencies(theta, rotary_dim)
        keep_F = turns_kept(turns(inverse_F, original), self.low_freq_factor, self.high_freq_factor)
        return Frequencies(blend(keep_F, inverse_F, self.factor))


@dataclass(frozen=True)
class Yarn:
    """YaRN (arXiv 2309.00071): NTK-by-parts and a temperature on the logits.

    The ramp runs over the pair index between the pairs that turn `beta_fast` and `beta_slow` times in the original
    window, as in YaRN's code and in transformers; the paper's eq. 18 ramps over the turns themselves, which gives
    frequencies that differ by up to 43 % at a stretch of four. `truncate` rounds both ends outwards.
    `attention_factor` None means 0.1 ln(factor) + 1, or the ratio of that with `mscale` and `mscale_all_dim`.
    """

    factor: float
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True
    attention_factor: float | None = None
    mscale: float | None = None
    mscale_all_dim: float | None = None
    rope_type: ClassVar[str] = "yarn"

    def frequencies(self, theta: float, rotary_dim: int, original: int, target: int) -> Frequencies:
        low = pair_turning(self.beta_fast, theta, rotary_dim, original)
        high = pair_turning(self.beta_slow, theta, rotary_dim, original)
        if self.truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, rotary_dim - 1)
        if low == high:
            high += 0.001  # as transformers: a step instead of a division by zero
        keep_F = 1 - np.clip((np.arange(rotary_dim // 2) - low) / (high - low), 0, 1)
        inverse_F = base_frequencies(theta, rotary_dim)
        return Frequencies(blend(keep_F, inverse_F, self.factor), self._attention_factor())

    def _attention_factor(self) -> float:
        if self.attention_factor is not None:
            return self.attention_factor
        if self.mscale and self.mscale_all_dim:
            return yarn_attention_factor(self.factor, self.mscale) / yarn_attention_factor(
                self.factor, self.mscale_all_dim
            )
        return yarn_attention_factor(self.factor)


@dataclass(frozen=True)
class LongRope:
    """LongRoPE (arXiv 2402.13753): one divisor a pair, one set within the original window and one beyond it.

    `attention_factor` None means sqrt(1 + ln(factor) / ln(original)); `factor` None means target / original.
    """

    short_factor: tuple[float, ...]
    long_factor: tuple[float, ...]
    factor: float | None = None
    attention_factor: float | None = None
    rope_type: ClassVar[str] = "longrope"

    def frequencies(self, theta: float, rotary_dim: int, original: int, target: int) -> Frequencies:
        divisor_F = np.asarray(self.long_factor if target > original else self.short_factor, dtype=float)
        return Frequencies(base_frequencies(theta, rotary_dim) / divisor_F, self._attention_factor(original, target))

    def _attention_factor(self, original: int, target: int) -> float:
        if self.attention_factor is not None:
            return self.attention_factor
        factor = target / original if self.factor is None else self.factor
        return math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 else 1.0


def blend(keep_F: np.ndarray, inverse_F: np.ndarray, factor: float) -> np.ndarray:
    """Frequencies kept where `keep_F` is 1, divided by `factor` where it is 0 (NTK-by-parts, YaRN eq. 18)."""
    return keep_F * inverse_F + (1 - keep_F) * inverse_F / factor


def turns_kept(turned_F: np.ndarray, low: float, high: float) -> np.ndarray:
    """1 for pairs of at least `high` turns in the original window, 0 for at most `low` (YaRN eq. 18, Llama 3.1).

    low = high is Llama 4's hard step.
    """
    if low == high:
        return (turned_F >= low).astype(float)
    return np.clip((turned_F - low) / (high - low), 0, 1)


def pair_turning(count: float, theta: float, rotary_dim: int, window: int) -> float:
    """Index, not rounded, of the pair that makes `count` full turns within `window` tokens."""
    return rotary_dim * math.log(window / (count * 2 * math.pi)) / (2 * math.log(theta))


def yarn_attention_factor(factor: float, mscale: float = 1.0) -> float:
    """0.1 mscale ln(factor) + 1, YaRN's sqrt(1 / t); 1 for a factor of at most 1."""
    return 0.1 * mscale * math.log(factor) + 1 if factor > 1 else 1.0


SCALINGS: dict[str, type[Scaling]] = {
    scaling.rope_type: scaling for scaling in (Unscaled, Linear, DynamicNtk, Yarn, Llama3, LongRope)
}
