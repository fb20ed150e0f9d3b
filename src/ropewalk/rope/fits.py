"""Attention scores fitted to random values, as in Figure 2 of the paper (arXiv 2306.15595, appendix C.1).

Sines and cosines of s theta_j, one pair a rotary pair, are fitted by least squares to independent normal values at
every distance of the window. What the fit does outside tells that nothing bounds it there; how large it grows is
decided by rounding, since the normal equations have a condition number of about 1e18.

Shape letters: F = rotary pairs, S = distances.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ropewalk.rope.bounds import distance_from_line, scores


@dataclass(frozen=True)
class Solver:
    """How the least squares are solved: by the normal equations with `ridge` on their diagonal, computed in `dtype`.

    `ridge` None: by singular values, of which those below `cut` times the largest are dropped. numpy's own `solve`
    works in float64 whatever it is given; another may be put in its place.
    """

    name: str
    dtype: type[np.floating] = np.float64
    ridge: float | None = 0.0
    cut: float = 0.0
    solve: Callable[[np.ndarray, np.ndarray], np.ndarray] = np.linalg.solve

    def fitted(self, basis_SF: np.ndarray, values_S: np.ndarray) -> np.ndarray:
        basis, values = basis_SF.astype(self.dtype), values_S.astype(self.dtype)
        if self.ridge is None:
            return np.linalg.lstsq(basis, values, rcond=self.cut)[0]
        normal = basis.T @ basis + self.dtype(self.ridge) * np.eye(basis.shape[1], dtype=self.dtype)
        return self.solve(normal, basis.T @ values)


SOLVERS = (
    Solver("normal equations, all but the solution in float32", np.float32),
    Solver("normal equations, float64"),
    Solver("singular values above 2e-4 of the largest", ridge=None, cut=2048 * float(np.finfo(np.float32).eps)),
    Solver("normal equations, ridge 1e-3", ridge=1e-3),
    Solver("normal equations, ridge 1", ridge=1.0),
    Solver("normal equations, ridge 10", ridge=10.0),
)


def basis(inverse_F: np.ndarray, distances_S: np.ndarray) -> np.ndarray:
    """Sines, then cosines, of s theta_j: (S, 2F)."""
    angles_SF = np.outer(distances_S, inverse_F)
    return np.concatenate([np.sin(angles_SF), np.cos(angles_SF)], axis=1)


def random_fit(inverse_F: np.ndarray, window: int, solver: Solver, seed: int) -> np.ndarray:
    """The h_j, float64 complex, of a fit to N(0, 1) values at the distances 0 .. window - 1."""
    values_S = np.random.default_rng(seed).standard_normal(window)
    basis_S2F = basis(inverse_F.astype(solver.dtype), np.arange(window, dtype=solver.dtype))
    weights = solver.fitted(basis_S2F, values_S).astype(np.float64)
    sines_F, cosines_F = np.split(weights, 2)
    return cosines_F - 1j * sines_F  # Re[h e^(i x)] = Re h cos x - Im h sin x


@dataclass(frozen=True)
class FitSize:
    """One fit, measured: the largest |a| within the window and as far again beyond it, and max|h_j|."""

    inside: float
    outside: float
    from_line: float  # the farthest from the line between neighbours, over 25 .. 75 in eighths, as the paper plots
    largest: float


def measured_fit(inverse_F: np.ndarray, window: int, solver: Solver, seed: int) -> FitSize:
    """The fit with this seed, measured."""
    h_F = random_fit(inverse_F, window, solver, seed)
    fitted_S = np.abs(scores(h_F, inverse_F, np.arange(2 * window)))
    starts_S = np.arange(min(25, window - 2), min(75, window - 1))
    between = max(float(distance_from_line(h_F, inverse_F, starts_S, k / 8).max()) for k in range(1, 8))
    inside, outside = fitted_S[:window].max(), fitted_S[window:].max()
    return FitSize(float(inside), float(outside), between, float(np.abs(h_F).max()))
