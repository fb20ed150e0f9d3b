"""How fast each rotary pair turns, and what that means within a window.

Everything in `ropewalk.rope` is float64 numpy: no torch, no model, no file.
Shape letters: F = rotary pairs (rotary_dim / 2).
"""

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Frequencies:
    """Radians per token of each rotary pair, and what multiplies cos and sin.

    `attention_factor` multiplies the rotated queries and the rotated keys, so attention logits grow by its square.
    """

    inverse_F: np.ndarray
    attention_factor: float = 1.0


def base_frequencies(theta: float, rotary_dim: int) -> np.ndarray:
    """theta^(-2j / rotary_dim) for j = 0 .. rotary_dim / 2 - 1, fastest first (RoFormer, arXiv 2104.09864, eq. 15).

    >>> base_frequencies(10_000.0, 8).round(6).tolist()
    [1.0, 0.1, 0.01, 0.001]
    """
    return theta ** -(np.arange(0, rotary_dim, 2) / rotary_dim)


def wavelengths(inverse_F: np.ndarray) -> np.ndarray:
    """Tokens in one full turn of each pair; infinite for a pair that stands still."""
    with np.errstate(divide="ignore"):
        return 2 * math.pi / inverse_F


def turns(inverse_F: np.ndarray, window: int) -> np.ndarray:
    """Full turns of each pair within `window` tokens (YaRN, arXiv 2309.00071, eq. 17)."""
    return window * inverse_F / (2 * math.pi)
