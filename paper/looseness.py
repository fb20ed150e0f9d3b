"""How loose the interpolation bounds are on real attention heads, which the paper did not measure.

For queries and keys of held-out text: the farthest that a head's score lies from the line between neighbouring distances
of its window, in eighths, against what each bound allows. One unit is the spread (standard deviation) of the head's scores
over the window: a bound above it would let interpolation change a score as much as moving the key does.

    python paper/looseness.py --model pilot
"""

import numpy as np
from drawing import axis, curve, options, saved
from heads import Heads, read_heads
from heads import options as with_model
from options import folder, require_counts, run
from part import Part, Table, write_part

from ropewalk.record import write_text
from ropewalk.reports.lines import Rule
from ropewalk.rope.bounds import (
    corrected_bound,
    curvature_bound,
    distance_from_line,
    printed_bound,
    scores,
    sharp_bound,
)

EIGHTHS = np.arange(1, 8) / 8
NAMES = ("printed", "corrected", "curvature", "sharp", "actual")


def measured(heads: Heads) -> dict[tuple[int, int], dict[str, np.ndarray]]:
    """Of each head: every bound and what there is, (N,), in units of the spread of that pair's own scores."""
    starts = np.arange(heads.window - 1)
    inverse_F, d = heads.inverse_F, 2 * len(heads.inverse_F)
    found = {}
    for place, h_NF in heads.h.items():
        sizes_NF = np.abs(h_NF)
        largest_N = sizes_NF.max(-1)
        spread_N = scores(h_NF, inverse_F, np.arange(heads.window)).std(-1)
        away = np.max([distance_from_line(h_NF, inverse_F, starts, share).max(-1) for share in EIGHTHS], axis=0)
        found[place] = {
            "printed": largest_N * printed_bound(heads.theta, d) / spread_N,
            "corrected": largest_N * corrected_bound(heads.theta, d) / spread_N,
            "curvature": curvature_bound(sizes_NF, inverse_F) / spread_N,
            "sharp": sharp_bound(sizes_NF, inverse_F) / spread_N,
            "actual": away / spread_N,
        }
    return found


def table(found: dict[tuple[int, int], dict[str, np.ndarray]]) -> Table:
    """What each bound allows, and how many times the actual distance that is, over all heads and pairs."""
    actual = np.concatenate([one["actual"] for one in found.values()])
    rows = []
    for name in NAMES:
        every = np.concatenate([one[name] for one in found.values()])
        times = every / actual
        ends = np.quantile(times, (0.05, 0.95))
        spread = "" if name == "actual" else f"{np.median(times):.2f} ({ends[0]:.2f} to {ends[1]:.2f})"
        least = "" if name == "actual" else f"{times.min():.3f}"
        over = "" if name == "actual" else f"{np.mean(times < 1):.1%}"
        rows.append([name, f"{np.median(every):.3f}", spread, least, over])
    head = ["bound", "allows, in spreads", "times what there is", "least times", "exceeded by"]
    note = (
        "Allows: the farthest that the bound lets a score lie from the line between neighbouring distances, in spreads, which are "
        'standard deviations of the same pair\'s scores over the window; for "actual", the farthest that it does lie. Times what '
        "there is: the bound over that, pair by pair. Least times: the smallest of these; below 1 the bound does not hold there. "
        "Exceeded by: the share of pairs below 1."
    )
    return Table("Medians over pairs of query and key, 5 to 95 %", head, rows, note)


def main(given: list[str] | None = None) -> None:
    arguments = with_model(options(__doc__)).parse_args(given)
    require_counts(arguments, "pairs")
    folder(arguments.out, "--out")
    heads = read_heads(arguments.model, arguments.data, arguments.pairs, arguments.seed)
    found = measured(heads)
    medians = {name: np.array([np.median(one[name]) for one in found.values()]) for name in NAMES}
    order = np.argsort(medians["actual"])
    ranks = np.arange(1, len(order) + 1)
    lines = [
        curve(name, tint, ranks, medians[name][order], dashed=name == "printed") for tint, name in enumerate(NAMES)
    ]
    drawn = saved(
        arguments.out / "looseness.svg", lines, axis("head, by what there is", ranks, room=0),
        axis("farthest from the line, in spreads of the score", np.concatenate(list(medians.values())), log=True),
        f"Interpolation bounds on {len(order)} heads of {arguments.model}, medians over pairs of query and key.",
        [Rule(1, "the spread itself", horizontal=True)] if max(map(np.max, medians.values())) > 1 else (),
    )  # fmt: skip
    count = len(found) * len(heads.distances)
    made = table(found)
    told = f"{arguments.model}: {len(found)} heads, {count} pairs of query and key"
    write_text(arguments.out / "looseness.md", f"{told}; medians, 5 to 95 %\n\n{made.markdown()}")
    pooled = {name: np.concatenate([one[name] for one in found.values()]) for name in NAMES}
    said = [
        f"the bound as {name} allows {np.median(pooled[name] / pooled['actual']):.1f} times what there is in the median, and is "
        f"exceeded by {np.mean(pooled['actual'] > pooled[name] * (1 + 1e-9)):.1%} of the pairs"
        for name in ("printed", "corrected")
    ]
    finding = f"{told}: {'; '.join(said)}. The paper did not measure it."
    title = "Beyond the paper: how loose its bound is on real heads"
    write_part(Part("looseness", title, tables=[made], figures=[drawn], findings=[finding], full=True), arguments.out)


if __name__ == "__main__":
    run(main)
