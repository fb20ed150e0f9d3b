"""Figure 5 of the paper: B(s) / d, which bounds attention scores where nothing was trained.

d = 128, theta = 10000, s = 0 .. 4095 as in appendix C.2: wholly reproducible, no seed and no model. Then the same farther,
where the paper does not look: from s = 4861 on, B(s) / d >= 1 no longer holds at every distance, and the ratio of the two
bounds that rests on it does not either.

    python paper/figure5.py
"""

from pathlib import Path

import numpy as np
from drawing import axis, curve, options, saved
from options import folder, run
from part import Part, write_part

from ropewalk.reports.figures import Figure
from ropewalk.reports.lines import Axis, Rule
from ropewalk.rope.bounds import spread_sum
from ropewalk.rope.frequencies import base_frequencies

HEAD_DIM, THETA = 128, 10_000.0
PLOTTED, FAR = 4096, 32768


def shares(far: int) -> np.ndarray:
    """B(s) / d for s = 0 .. far - 1."""
    return spread_sum(base_frequencies(THETA, HEAD_DIM), np.arange(far)) / HEAD_DIM


def as_printed(path: Path) -> tuple[Figure, str]:
    """The paper's plot, and its figures in words."""
    near = shares(PLOTTED)
    least = f"least {near.min():.4f} at s = {near.argmin()}"
    drawn = saved(
        path,
        [curve("B(s) / d", 1, np.arange(PLOTTED), near)],
        axis("distance s, tokens", np.arange(PLOTTED), room=0),
        Axis("B(s) / d", 0, 17, False, (0, 4, 8, 12, 16)),
        f"B(s) / d for s below {PLOTTED}: {near[0]:g} at 0, {least}.",
        [Rule(1, "1", horizontal=True)],
    )
    return drawn, f"s < {PLOTTED}: B(0)/d {near[0]:g}, B(1)/d {near[1]:.2f}, median {np.median(near):.3f}, {least}"


def farther(path: Path) -> tuple[Figure, str]:
    """The same to eight times the plot, where it falls below 1, and its figures in words."""
    shares_S = shares(FAR)
    first = int(np.flatnonzero(shares_S < 1)[0])
    drawn = np.unique([*np.geomspace(1, FAR - 1, 3000).astype(int), first, shares_S.argmin()])
    words = f"first below 1 at s = {first}, least {shares_S.min():.3f} at s = {shares_S.argmin()}"
    figure = saved(
        path,
        [curve("B(s) / d", 1, drawn, shares_S[drawn])],
        Axis("distance s, tokens", 1, FAR, True, (1, 16, 256, 2048, 32768)),
        axis("B(s) / d", shares_S, log=True),
        f"B(s) / d for s below {FAR}: {words}.",
        [Rule(1, "1", horizontal=True), Rule(PLOTTED, "the paper's plot ends")],
    )
    return figure, f"s < {FAR}: {words}, {(shares_S < 1).mean():.1%} below 1"


def main(given: list[str] | None = None) -> None:
    arguments = options(__doc__).parse_args(given)
    folder(arguments.out, "--out")
    near, near_words = as_printed(arguments.out / "figure5.svg")
    far, far_words = farther(arguments.out / "figure5-farther.svg")
    least = shares(PLOTTED).min()
    agrees = "agrees" if least >= 1 else "does not agree"
    findings = [
        f"{near_words}. The paper says B(s)/d is at least 1 where it plots it: {agrees}.",
        f"{far_words}: the paper does not look there, and the ratio of the two bounds that rests on it holds on its plot alone.",
    ]
    title = "Figure 5: the bound on scores beyond the window"
    write_part(Part("figure5", title, figures=[near, far], findings=findings, full=True), arguments.out)


if __name__ == "__main__":
    run(main)
