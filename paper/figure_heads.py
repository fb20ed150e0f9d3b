"""The picture that the paper lacks: scores of real trained heads within their window and beyond it, and interpolated.

For queries and keys of held-out text, a(s) as if the key stood at every distance s: the median of all pairs at each s,
with the outline of 5 to 95 % behind it. Extrapolated: s as it is. Interpolated: s divided by the stretch, so that no distance is longer than any trained on. Drawn
are the head whose scores leave their trained range farthest, the one in the middle and the one that leaves it least; the
table has all. The range of the trained part is what training has shaped; a score beyond it is one the softmax never met.

    python paper/figure_heads.py --model pilot --stretch 4
"""

from dataclasses import dataclass, replace

import numpy as np
from drawing import axis, curve, options, saved
from heads import Heads, read_heads
from heads import options as with_model
from options import folder, require_counts, run
from part import Part, Table, write_part

from ropewalk.record import write_text
from ropewalk.reports.figures import Figure
from ropewalk.reports.lines import Line, Rule
from ropewalk.rope.bounds import scores

SHARES = (0.95, 0.5, 0.05)


@dataclass(frozen=True)
class Reach:
    """One head: quantiles of its scores at each distance, (3, S), and how far they leave what was trained.

    An excess is how far the highest 95 % or the lowest 5 % lies outside their range within the window, in widths of it.
    """

    extrapolated: np.ndarray
    interpolated: np.ndarray
    excess: float
    excess_interpolated: float


def reach(h_NF: np.ndarray, heads: Heads, stretch: int) -> Reach:
    distances = np.arange(1, heads.window * stretch)
    far, squeezed = (
        np.quantile(scores(h_NF, heads.inverse_F, s), SHARES, axis=0) for s in (distances, distances / stretch)
    )
    low, high = far[2, : heads.window - 1].min(), far[0, : heads.window - 1].max()

    def excess(quantiles: np.ndarray) -> float:
        return max(quantiles[0].max() - high, low - quantiles[2].min(), 0.0) / (high - low)

    return Reach(far, squeezed, excess(far), excess(squeezed))


def band(label: str, tint: int, x: np.ndarray, quantiles: np.ndarray) -> Line:
    """The median, with the outline of 5 to 95 % behind it."""
    high, middle, low = quantiles
    outline = [*zip(x, high, strict=True), *zip(x[::-1], low[::-1], strict=True)]
    return replace(curve(label, tint, x, middle), faint=tuple((float(a), float(b)) for a, b in outline))


def draw(out, name: str, place: tuple[int, int], found: Reach, heads: Heads, stretch: int) -> Figure:
    distances = np.arange(1, heads.window * stretch)
    chosen = np.unique(np.geomspace(1, len(distances), 400).astype(int)) - 1
    lines = [
        band("extrapolated", 2, distances[chosen], found.extrapolated[:, chosen]),
        band("interpolated", 1, distances[chosen], found.interpolated[:, chosen]),
    ]
    both = np.concatenate([found.extrapolated[:, chosen], found.interpolated[:, chosen]])
    x = axis("distance s, tokens", [1, heads.window * stretch], log=True, room=0)
    powers = tuple(2.0**k for k in range(0, 40, 2) if 2**k <= heads.window * stretch)
    return saved(
        out / f"heads-{name}.svg", lines, type(x)(x.title, x.lo, x.hi, True, powers), axis("attention logit a(s)", both),
        f"Scores of head {place[1]} of layer {place[0]}: beyond the window they leave their range by {found.excess:.0%} "
        f"of its width extrapolated, and by {found.excess_interpolated:.0%} interpolated.",
        [Rule(heads.window, "the window ends")],
    )  # fmt: skip


def main(given: list[str] | None = None) -> None:
    parser = with_model(options(__doc__))
    parser.add_argument("--stretch", type=int, default=4, help="target over window (%(default)s)")
    arguments = parser.parse_args(given)
    require_counts(arguments, "pairs", "stretch")
    folder(arguments.out, "--out")
    heads = read_heads(arguments.model, arguments.data, arguments.pairs, arguments.seed)
    found = {place: reach(h_NF, heads, arguments.stretch) for place, h_NF in heads.h.items()}
    ranked = sorted(found, key=lambda place: found[place].excess)
    chosen = (("most", ranked[-1]), ("middle", ranked[len(ranked) // 2]), ("least", ranked[0]))
    drawn = [draw(arguments.out, name, place, found[place], heads, arguments.stretch) for name, place in chosen]
    head = ["layer", "head", "leaves its range by, extrapolated", "interpolated"]
    rows = [
        [str(place[0]), str(place[1]), f"{found[place].excess:.0%}", f"{found[place].excess_interpolated:.0%}"]
        for place in reversed(ranked)
    ]
    note = (
        "The range of a head is from the lowest 5 % to the highest 95 % of its scores over all distances of the window. It leaves "
        "it by so much where the highest 95 % or the lowest 5 % at a distance lies outside, in widths of the range, at most over "
        f"{arguments.stretch} times the window."
    )
    table = Table("Every head", head, rows, note)
    write_text(arguments.out / "heads.md", table.markdown())
    out_of = sum(one.excess > 0.1 for one in found.values())
    still = sum(one.excess_interpolated > 0.1 for one in found.values())
    findings = [
        f"Extrapolated to {arguments.stretch} times the window, {out_of} of {len(found)} heads leave the range of scores that "
        f"training has shaped by more than a tenth of its width; interpolated, {still} do. The paper shows no real head."
    ]
    title = "Beyond the paper: scores of real heads within and beyond the window"
    write_part(Part("heads", title, tables=[table], figures=drawn, findings=findings, full=True), arguments.out)


if __name__ == "__main__":
    run(main)
