"""What theory promises of attention scores between trained positions and beyond them (arXiv 2306.15595, 2.2 and 2.3).

The score of a query and a key at distance s is a(s) = Re sum_j h_j e^(i s theta_j), where h_j is the query's pair j
times the conjugate of the key's (equation 3). Between two neighbouring positions a(s) stays near the straight line
through its values there; every bound below is of the distance from that line, at worst the middle. `docs/window.md`
has the proofs in words.

Shape letters: F = rotary pairs, S = distances.
"""

import math

import numpy as np


def square_sum(theta: float, rotary_dim: int) -> float:
    """The sum of theta_j^2 over all pairs, a geometric series: (1 - theta^-2) / (1 - theta^(-4/d)).

    >>> round(square_sum(10_000.0, 128), 4)
    3.9983
    """
    return (1 - theta**-2) / (1 - theta ** (-4 / rotary_dim))


def printed_square_sum(theta: float, rotary_dim: int) -> float:
    """d / (4 ln theta), which the paper's proof (appendix A) takes for an upper bound of `square_sum`, and is below it.

    >>> round(printed_square_sum(10_000.0, 128), 4)
    3.4744
    """
    return rotary_dim / (4 * math.log(theta))


def printed_bound(theta: float, rotary_dim: int, largest: float = 1.0) -> float:
    """Theorem 2.1 as printed, between neighbours (equation 7): d max|h_j| / (32 ln theta). Scores exceed it.

    `largest` is max|h_j|.
    """
    return largest * printed_square_sum(theta, rotary_dim) / 8


def corrected_bound(theta: float, rotary_dim: int, largest: float = 1.0) -> float:
    """Theorem 2.1 with the sum that its proof needs: max|h_j| times `square_sum` / 8.

    >>> round(128 / corrected_bound(10_000.0, 128), 1), round(128 / printed_bound(10_000.0, 128), 1)
    (256.1, 294.7)
    """
    return largest * square_sum(theta, rotary_dim) / 8


def curvature_bound(sizes_F: np.ndarray, inverse_F: np.ndarray) -> np.ndarray:
    """The same with every pair's own size: sum_j |h_j| theta_j^2 / 8. `sizes_F` may have axes before its last."""
    return sizes_F @ inverse_F**2 / 8


def sharp_bound(sizes_F: np.ndarray, inverse_F: np.ndarray) -> np.ndarray:
    """The least bound that knows the |h_j| alone: sum_j |h_j| (1 - cos(theta_j / 2)). `worst_phases` attain it.

    A pair moves on an arc of theta_j radians; the line between its ends is a chord, and the farthest that the two
    points of one time lie apart is the height of the arc over the chord. Ours; the paper has no such bound.
    """
    return sizes_F @ (1 - np.cos(inverse_F / 2))


def worst_phases(inverse_F: np.ndarray) -> np.ndarray:
    """The h_j of size 1 whose score lies farthest from the line between distances 0 and 1: e^(-i theta_j / 2).

    >>> from ropewalk.rope.frequencies import base_frequencies
    >>> inverse_F = base_frequencies(10_000.0, 128)
    >>> round(float(distance_from_line(worst_phases(inverse_F), inverse_F, np.zeros(1), 0.5)[0]), 4)
    0.4939
    """
    return np.exp(-0.5j * inverse_F)


def scores(h_F: np.ndarray, inverse_F: np.ndarray, distances_S: np.ndarray) -> np.ndarray:
    """a(s) at each distance (equation 3). `h_F` may have axes before its last, which the answer keeps."""
    angles_FS = np.outer(inverse_F, distances_S)
    return np.real(h_F) @ np.cos(angles_FS) - np.imag(h_F) @ np.sin(angles_FS)


def distance_from_line(
    h_F: np.ndarray, inverse_F: np.ndarray, starts_S: np.ndarray, share: float | np.ndarray
) -> np.ndarray:
    """|a(s) - a_lin(s)| at s = start + share, where a_lin is the line through a(start) and a(start + 1)."""
    low, high = (scores(h_F, inverse_F, starts_S + step) for step in (0, 1))
    return np.abs(scores(h_F, inverse_F, starts_S + share) - (low + share * (high - low)))


def spread_sum(inverse_F: np.ndarray, distances_S: np.ndarray) -> np.ndarray:
    """B(s) = sum_k |A_(k+1)(s)| with A_k(s) = sum_(j<k) e^(i s theta_j) (equation 8; RoFormer, 3.4.3).

    |a(s)| <= 2 max|h_j| B(s) is the paper's bound where nothing was trained.

    >>> from ropewalk.rope.frequencies import base_frequencies
    >>> spread_sum(base_frequencies(10_000.0, 128), np.zeros(1)).tolist()
    [2080.0]
    """
    phasors_SF = np.exp(1j * np.outer(distances_S, inverse_F))
    return np.abs(np.cumsum(phasors_SF, axis=-1)).sum(-1)
