"""The drawings of docs/window.md: the score that exceeds the printed bound, the bounds by head size, and B(s) farther out.

python paper/window_plots.py --out docs/window
"""

import numpy as np
from drawing import axis, curve, options, saved
from figure5 import farther
from options import folder, run

from ropewalk.reports.lines import Axis, Rule
from ropewalk.rope.bounds import corrected_bound, distance_from_line, printed_bound, sharp_bound, worst_phases
from ropewalk.rope.frequencies import base_frequencies

THETA, HEAD_DIM = 10_000.0, 128


def counterexample(out) -> None:
    """The worst phases between distances 0 and 1, under the two bounds."""
    inverse_F = base_frequencies(THETA, HEAD_DIM)
    shares = np.linspace(0, 1, 101)
    away = np.array([distance_from_line(worst_phases(inverse_F), inverse_F, np.zeros(1), share)[0] for share in shares])
    printed, corrected = printed_bound(THETA, HEAD_DIM), corrected_bound(THETA, HEAD_DIM)
    bounds = {"printed": 4 * printed * shares * (1 - shares), "corrected": 4 * corrected * shares * (1 - shares)}
    saved(
        out / "counterexample.svg",
        [curve("a score", 2, shares, away),
         *(curve(name, tint, shares, allowed, dashed=True) for tint, (name, allowed) in enumerate(bounds.items()))],
        axis("s, between two neighbouring distances", shares, room=0), Axis("|a(s) - its line|", 0, 0.55, False, (0, 0.1, 0.2, 0.3, 0.4, 0.5)),
        f"A score of |h_j| = 1 lies {away.max():.4f} from its line, above the {printed:.4f} that is printed and below the "
        f"{corrected:.4f} that holds.",
        [Rule(0.5, "the middle")],
    )  # fmt: skip


def constants(out) -> None:
    """Each bound over d, by the size of the head."""
    dims = np.unique(np.geomspace(4, 4096, 200).astype(int) // 2 * 2)
    lines = {
        "printed": [printed_bound(THETA, int(d)) for d in dims],
        "corrected": [corrected_bound(THETA, int(d)) for d in dims],
        "sharp": [float(sharp_bound(np.ones(d // 2), base_frequencies(THETA, int(d)))) for d in dims],
    }
    curves = [curve(name, tint, dims, np.array(values)) for tint, (name, values) in enumerate(lines.items())]
    saved(
        out / "constants.svg", curves, Axis("head dimension d", 4, 4096, True, (4, 16, 64, 256, 1024, 4096)),
        axis("bound at max|h_j| = 1", np.concatenate(list(lines.values())), log=True),
        "The bounds by head dimension: the printed one lies below the sharp one up to d = 1746, most for small heads.",
        [Rule(HEAD_DIM, "LLaMA")],
    )  # fmt: skip


def main(given: list[str] | None = None) -> None:
    arguments = options(__doc__).parse_args(given)
    folder(arguments.out, "--out")
    counterexample(arguments.out)
    constants(arguments.out)
    farther(arguments.out / "spread.svg")


if __name__ == "__main__":
    run(main)
