"""The pictures of `methods.py`: perplexity by window, one a method over all targets and one a target over all methods."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from drawing import saved
from perplexity_tables import LEFT
from readings import Change, Keys, perplexities
from study import Study

from ropewalk.record import Run
from ropewalk.reports.figures import Figure
from ropewalk.reports.lines import Axis, Line, Mark, Rule
from ropewalk.reports.standalone import HALF_ALONE
from ropewalk.reports.svg import log_ticks, powers_of_two
from ropewalk.rope.methods import METHOD_NAMES

Sums = Sequence[tuple[float, int]]


@dataclass(frozen=True)
class Row:
    """One method at one target. `levels`: by step, what perplexity at the target is of the base's within its window."""

    method: str
    target: int
    untuned: Run
    tuned: Run
    steps: int
    keys: Keys | None
    cost: Change
    levels: dict[int, Change]
    flops: float | None  # of a step
    losses: dict[str, Sums]  # untuned and tuned: each document's at the target


def picture(study: Study, method: str, rows: Sequence[Row], base: Run, axes: tuple[Axis, Axis], out: Path) -> Figure:
    """A method's perplexity by window: dashed untuned, solid tuned, a colour a target, the base in grey; a file too."""
    lines = [_line("base", 0, perplexities(base))]
    for tint, row in enumerate((row for row in rows if row.method == method), 1):
        lines.append(_line(f"{row.target}, untuned", tint, perplexities(row.untuned), dashed=True))
        lines.append(_line(f"{row.target}, tuned", tint, perplexities(row.tuned)))
    reach = ", ".join(f"k_max {row.keys.k_max} of {row.target}" for row in rows if row.method == method and row.keys)
    name = METHOD_NAMES[method]
    summary = f"{name}: perplexity by window. {reach}."
    drawn = saved(out / f"method-{method}.svg", lines, *axes, summary, [Rule(study.window, "window")], HALF_ALONE)
    return replace(drawn, title=f"{name}: {reach}" if reach else name)


def _line(label: str, tint: int, values: Mapping[int, float], *, dashed: bool = False) -> Line:
    return Line(
        label, tint, tuple(Mark(length, value) for length, value in values.items() if value < 1e6), dashed=dashed
    )


def shared_axes(study: Study, rows: Sequence[Row], base: Run) -> tuple[Axis, Axis]:
    every = [*perplexities(base).values()]
    every += [value for row in rows for one in (row.untuned, row.tuned) for value in perplexities(one).values()]
    known = [value for value in every if value < 1e6]
    lo, hi = min(known) / 1.1, max(known) * 1.1
    ends = study.window, max(study.targets)
    x = Axis("evaluation window, tokens", LEFT * ends[0], ends[1], True, tuple(powers_of_two(*ends, 5)) or ends)
    return x, Axis("perplexity (lower is better)", lo, hi, True, tuple(log_ticks(lo, hi)))


def overviews(study: Study, rows: Sequence[Row], base: Run, axes: tuple[Axis, Axis], out: Path) -> list[Figure]:
    """All methods after tuning in one drawing a target, as files too."""
    drawn = []
    for target in study.targets:
        here = [row for row in rows if row.target == target]
        lines = [_line("base", 0, perplexities(base))]
        lines += [
            _line(METHOD_NAMES[row.method], tint % 8, perplexities(row.tuned), dashed=tint > 7)
            for tint, row in enumerate(here, 1)
        ]
        summary = f"To {target}: perplexity by window after {here[0].steps} steps of tuning, every method."
        drawn.append(saved(out / f"methods-{target}.svg", lines, *axes, summary, [Rule(study.window, "window")]))
    return drawn
