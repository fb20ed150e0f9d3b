"""Figure 5 of the paper: B(s) / d, which bounds attention scores where nothing was trained.

d = 128, theta = 10000, s = 0 .. 4095 as in appendix C.2: wholly reproducible, no seed and no model. Then the same farther,
where the paper does not look: from s = 4861 on, B(s) / d >= 1 no longer holds at every distance, and the ratio of the two
bounds that rests on it does not either.

    python paper/figure5.py
"""

import numpy as np
from drawing import axis, curve, options, saved

from ropewalk.reports.lines import Axis, Rule
from ropewalk.rope.bounds import spread_sum
from ropewalk.rope.frequencies import base_frequencies

HEAD_DIM, THETA = 128, 10_000.0
PLOTTED, FAR = 4096, 32768


def main() -> None:
    arguments = options(__doc__).parse_args()
    inverse_F = base_frequencies(THETA, HEAD_DIM)
    shares_S = spread_sum(inverse_F, np.arange(FAR)) / HEAD_DIM
    near, first = shares_S[:PLOTTED], int(np.flatnonzero(shares_S < 1)[0])
    least = f"least {near.min():.4f} at s = {near.argmin()}"
    saved(
        arguments.out / "figure5.svg",
        [curve("B(s) / d", 1, np.arange(PLOTTED), near)],
        axis("distance s, tokens", np.arange(PLOTTED), room=0),
        Axis("B(s) / d", 0, 17, False, (0, 4, 8, 12, 16)),
        f"B(s) / d for s below {PLOTTED}: {near[0]:g} at 0, {least}.",
        [Rule(1, "1", horizontal=True)],
    )
    beyond = np.unique(np.geomspace(1, FAR - 1, 3000).astype(int))
    below = float((shares_S < 1).mean())
    saved(
        arguments.out / "figure5-farther.svg",
        [curve("B(s) / d", 1, beyond, shares_S[beyond])],
        Axis("distance s, tokens", 1, FAR, True, (1, 16, 256, 2048, 32768)),
        axis("B(s) / d", shares_S, log=True),
        f"B(s) / d for s below {FAR}: first below 1 at s = {first}, least {shares_S.min():.3f} at s = {shares_S.argmin()}.",
        [Rule(1, "1", horizontal=True), Rule(PLOTTED, "the paper's plot ends")],
    )
    print(f"s < {PLOTTED}: B(0)/d {near[0]:g}, B(1)/d {near[1]:.2f}, median {np.median(near):.3f}, {least}")
    print(f"s < {FAR}: first below 1 at s = {first}, least {shares_S.min():.3f} at s = {shares_S.argmin()}, {below:.1%} below 1")


if __name__ == "__main__":
    main()
