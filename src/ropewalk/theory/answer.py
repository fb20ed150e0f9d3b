"""`ropewalk bounds`: the paper's theory in numbers for one size of head, as printed and as it holds. No torch."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ropewalk.errors import RopeError
from ropewalk.rope.bounds import (
    corrected_bound,
    distance_from_line,
    printed_bound,
    printed_square_sum,
    sharp_bound,
    spread_sum,
    square_sum,
    worst_phases,
)
from ropewalk.rope.fits import SOLVERS, FitSize, Solver, measured_fit
from ropewalk.rope.frequencies import base_frequencies
from ropewalk.rope.spec import RopeSpec, Window

FAR = 16  # windows that B(s) is followed over; the paper plots two
_MEASURES = ("inside", "outside", "from_line", "largest")  # of a fit
_NUMBERS = 2**19  # phasors held at once
_LARGEST_WINDOW = 2**17  # of which 16 are followed


def bounds(*, head_dim: int = 128, theta: float = 10_000.0, window: int = 2048, fits: int = 20) -> dict[str, Any]:
    """The bounds of arXiv 2306.15595 (equations 5 to 8), its Figure 5 in numbers, and Figure 2's fit by six solvers.

    `fits` is the number of seeds each solver's medians are over; 0 leaves them out. Bounds are for max|h_j| = 1, in the
    middle between neighbouring positions. "unsolved" counts the seeds whose normal equations are singular in floating point
    and have no solution; medians are over the others, and None where there is none. Raises RopeError for a head, theta or
    window that cannot be.

    >>> [round(128 / row["bound"], 1) for row in bounds(fits=0)["interpolation"]]
    [294.7, 256.1, 259.2]
    """
    rope = RopeSpec(theta=float(theta), rotary_dim=head_dim, window=Window(window, window))
    if window < 4 or window > _LARGEST_WINDOW:
        raise RopeError(
            f"the window is {window} tokens.\n"
            f"  Expected from 4 to {_LARGEST_WINDOW}: {FAR} windows are computed, every distance of them.\n"
            "  Give another --window; LLaMA's is 2048."
        )
    inverse_F = base_frequencies(rope.theta, head_dim)
    return {
        "head_dim": head_dim,
        "theta": rope.theta,
        "window": window,
        "interpolation": _interpolation(rope.theta, head_dim),
        "counterexample": float(distance_from_line(worst_phases(inverse_F), inverse_F, np.zeros(1), 0.5)[0]),
        "extrapolation": _extrapolation(inverse_F, window),
        "fits": [_fits(inverse_F, window, solver, fits) for solver in SOLVERS] if fits > 0 else [],
    }


def _interpolation(theta: float, head_dim: int) -> list[dict[str, Any]]:
    """Each bound, and how far two bounds on scores beyond the window lie above it.

    "paper_ratio": 2 B(s), which the paper takes to be at least 2 d. "trivial_ratio": the sum of |h_j|, at most d / 2,
    which holds at every distance, within the window and beyond.
    """
    sharp = float(sharp_bound(np.ones(head_dim // 2), base_frequencies(theta, head_dim)))
    found = [
        ("printed", printed_square_sum(theta, head_dim), printed_bound(theta, head_dim)),
        ("corrected", square_sum(theta, head_dim), corrected_bound(theta, head_dim)),
        ("sharp", None, sharp),
    ]
    return [
        {"name": name, "square_sum": total, "bound": bound, "paper_ratio": 2 * head_dim / bound,
         "trivial_ratio": head_dim / 2 / bound}
        for name, total, bound in found
    ]  # fmt: skip


def _extrapolation(inverse_F: np.ndarray, window: int) -> dict[str, Any]:
    """B(s) / d: at single distances, over the two windows that the paper plots, and over sixteen."""
    far, rows = FAR * window, max(1, _NUMBERS // len(inverse_F))
    shares_S = np.concatenate(
        [spread_sum(inverse_F, np.arange(first, min(first + rows, far))) for first in range(0, far, rows)]
    ) / (2 * len(inverse_F))
    below = np.flatnonzero(shares_S < 1)
    return {
        "at": {str(s): float(shares_S[s]) for s in (0, 1, window)},
        "plotted": _range(shares_S[: 2 * window]),
        "far": _range(shares_S),
        "first_below_1": int(below[0]) if len(below) else None,
    }


def _range(shares_S: np.ndarray) -> dict[str, Any]:
    return {
        "distances": len(shares_S),
        "median": float(np.median(shares_S)),
        "least": float(shares_S.min()),
        "least_at": int(shares_S.argmin()),
        "below_1": float((shares_S < 1).mean()),
    }


def _fits(inverse_F: np.ndarray, window: int, solver: Solver, count: int) -> dict[str, Any]:
    found = [fit for seed in range(count) if (fit := _fit(inverse_F, window, solver, seed)) is not None]
    return {"solver": solver.name, "seeds": count, "unsolved": count - len(found)} | (
        summary(found) if found else dict.fromkeys(_MEASURES)
    )


def _fit(inverse_F: np.ndarray, window: int, solver: Solver, seed: int) -> FitSize | None:
    """None where the normal equations are singular to the last bit: nothing is wrong with the rotation then."""
    try:
        return measured_fit(inverse_F, window, solver, seed)
    except np.linalg.LinAlgError:
        return None


def summary(measured: Sequence[FitSize]) -> dict[str, list[float]]:
    """Median, least and most of each figure of some fits."""
    columns = {name: np.array([getattr(one, name) for one in measured]) for name in _MEASURES}
    return {name: [float(np.median(c)), float(c.min()), float(c.max())] for name, c in columns.items()}
