"""Tables 1 and 2: perplexity by evaluation window of the base, of direct tuning and of Position Interpolation.

Two tables come of it. The first holds perplexities with their standard errors over documents, and the paper's where the
model is the paper's. The second divides each by the base's within its own window, which compares across models: beside
ours stands the paper's 7B at the same stretch. Its errors are paired, over the documents' own differences.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from part import Cell, Part, Table, figure
from printed import BEYOND, DIRECT_STEPS, ORIGINAL, PI_STEPS, WINDOWS, beside
from readings import ERRORS, Change, change, direction, document_losses, of_stride, perplexities, perplexity_cell
from study import LABELS, Arm, Study

from ropewalk.record import Run
from ropewalk.reports.lines import Axis, Chart, Line, Mark, Rule
from ropewalk.reports.svg import log_ticks, powers_of_two

METHODS = ("none", "pi")
LEFT = 0.75  # where an axis begins, of the original window: room for the name of its rule
Printed = Mapping[tuple[str, int, str], Sequence[float | None]]


@dataclass(frozen=True)
class Row:
    """One model of the table: its evaluation, and the folder it lies in. `arm` None: the base."""

    arm: Arm | None
    run: Run
    folder: Path

    @property
    def label(self) -> str:
        return "the base" if self.arm is None else f"{LABELS[self.arm.method]}, to {self.arm.target}"


def measured_rows(study: Study, name: str, **texts: Any) -> list[Row]:
    """The base, and both methods at every target, tuned to the end."""
    lengths = study.lengths(max(study.targets))
    passkey = name == "texts"  # the evaluation that Table 4 reads too
    rows = [
        Row(
            None,
            study.measured(None, name=name, passkey=False, lengths=lengths, **texts),
            study.evaluation(None, name=name),
        )
    ]
    for target in study.targets:
        for method in METHODS:
            arm = Arm(method, target)
            run = study.measured(arm, study.steps, name=name, passkey=passkey, **texts)
            rows.append(Row(arm, run, study.evaluation(arm, study.steps, name)))
    return rows


def papers_row(printed: Printed, size: str, study: Study, row: Row) -> Sequence[float | None]:
    """What the paper has for this stretch and method; nothing where it has none."""
    target = study.window if row.arm is None else row.arm.target
    key = (size, round(ORIGINAL * study.stretch(target)), "base" if row.arm is None else row.arm.method)
    return printed.get(key, (None,) * len(WINDOWS))


def papers_at(values: Sequence[float | None], stretch: float) -> float | None:
    window = round(ORIGINAL * stretch)
    return values[WINDOWS.index(window)] if window in WINDOWS else None


def changes_from_base(rows: Sequence[Row], window: int) -> dict[str, dict[int, Change]]:
    """Of each row by its label: by window, the change from the base within its own."""
    base = document_losses(rows[0].folder, window)
    return {
        row.label: {length: change(base, document_losses(row.folder, length)) for length in perplexities(row.run)}
        for row in rows
    }


def perplexity_part(study: Study, name: str, title: str, lede: str, printed: Printed, rows: Sequence[Row]) -> Part:
    size, same = beside(study.base.parameters, study.window)
    relative = changes_from_base(rows, study.window)
    within = {row.label: change_within(row, study.window) for row in rows if row.arm is not None}
    return Part(
        name, title, lede,
        tables=[_values(study, printed, size if same else None, rows), _ratios(study, printed, size, same, rows, relative)],
        figures=[_picture(study, rows)],
        findings=findings(study, printed, size, rows, relative, within),
        facts=facts(study, rows, relative, within), full=True,
    )  # fmt: skip


def change_within(row: Row, window: int) -> dict[int, Change]:
    """From a model's own perplexity at the original window to that at each longer one."""
    first = document_losses(row.folder, window)
    return {length: change(first, document_losses(row.folder, length)) for length in perplexities(row.run)}


def doublings(row: Row) -> list[Change]:
    """From each window of a row to the next longer one."""
    lengths = list(perplexities(row.run))
    found = [document_losses(row.folder, length) for length in lengths]
    return [change(before, after) for before, after in pairwise(found)]


def _values(study: Study, printed: Printed, size: str | None, rows: Sequence[Row]) -> Table:
    lengths = list(perplexities(rows[0].run))
    lines = []
    for row in rows:
        theirs = papers_row(printed, size, study, row) if size else ()
        cells: list[str | Cell] = [row.label]
        for length in lengths:
            if length not in perplexities(row.run):
                cells.append("beyond its target")
                continue
            found = perplexity_cell(row.run, length)
            paper = papers_at(theirs, study.stretch(length)) if size else None
            cells.append(Cell(found.text, found.error, "" if paper is None else f"paper {_shown(paper)}"))
        lines.append(cells)
    stride = of_stride(study.window, rows[0].run.resolved["stride"])
    note = f"± one standard error over documents. {stride} " + (
        f"Below, the paper's {size}. {unequal(study.steps)}"
        if size
        else "The paper's values are of other models: see the ratios."
    )
    return Table("Perplexity by evaluation window, tokens", ["", *map(str, lengths)], lines, note)


def _ratios(
    study: Study, printed: Printed, size: str, same: bool, rows: Sequence[Row], relative: Mapping[str, Mapping[int, Change]]
) -> Table:  # fmt: skip
    lengths = list(perplexities(rows[0].run))
    own = papers_at(papers_row(printed, size, study, rows[0]), 1)
    lines = []
    for row in rows:
        theirs = papers_row(printed, size, study, row)
        cells: list[str | Cell] = [row.label]
        for length in lengths:
            paper = papers_at(theirs, study.stretch(length))
            said = "" if paper is None or not own else f"paper {_over(paper, own)}"
            ours = relative[row.label].get(length)
            cells.append("beyond its target" if ours is None else Cell(ours.cell.text, ours.cell.error, said))
        lines.append(cells)
    whose = f"the paper's {size}" + ("" if same else ", another model on other texts, at the same stretch")
    columns = ["", *(f"{study.stretch(length):g} x" for length in lengths)]
    note = f"± one standard error, paired by document. {ERRORS} Below: {whose}. {unequal(study.steps)}"
    return Table("The same, divided by the base's within its own window", columns, lines, note)


def unequal(steps: int) -> str:
    """That the paper's two methods have not the same steps, and ours have."""
    return f"The paper's direct tuning had {DIRECT_STEPS:,} steps and its PI {PI_STEPS:,}; ours had {steps} each."


def _over(value: float, own: float) -> str:
    """The ratio of two of the paper's perplexities; of one that it gives a bound for, that bound in whole numbers."""
    return f"> {BEYOND / own:.0f}" if value == BEYOND else f"{value / own:.3f}"


def _shown(value: float) -> str:
    return "> 1000" if value == BEYOND else f"{value:.2f}"


def _picture(study: Study, rows: Sequence[Row]):
    lines, values = [], []
    for tint, row in enumerate(rows):
        points = [(length, value) for length, value in perplexities(row.run).items() if value < 1e6]
        lines.append(Line(row.label, tint, tuple(Mark(length, value) for length, value in points)))
        values += [value for _, value in points]
    lo, hi = min(values) / 1.1, max(values) * 1.1
    y = Axis("perplexity (lower is better)", lo, hi, True, tuple(log_ticks(lo, hi)))
    ends = study.window, max(study.targets)
    x = Axis("evaluation window, tokens", LEFT * ends[0], ends[1], True, tuple(powers_of_two(*ends, 6)) or ends)
    rules = (Rule(study.window, "the base's window"),)
    summary = "Perplexity by evaluation window: " + "; ".join(row.label for row in rows) + "."
    return figure("Perplexity by evaluation window", Chart(tuple(lines), x, y, rules, summary), half=False)


def findings(
    study: Study, printed: Printed, size: str, rows: Sequence[Row], relative: Mapping[str, Mapping[int, Change]],
    within: Mapping[str, Mapping[int, Change]],
) -> list[str]:  # fmt: skip
    """A sentence an arm, on what agrees with the paper's 7B (or the model itself) and what does not; the base's last."""
    theirs = papers_row(printed, size, study, rows[0])
    said = []
    for row in rows[1:]:
        assert row.arm is not None
        reached, cost = within[row.label][row.arm.target], relative[row.label][study.window]
        text = (
            f"{row.label}: perplexity at {row.arm.target} is {reached.cell.plain} of its own at {study.window}, and at "
            f"{study.window} {cost.cell.plain} of the base's."
        )
        said.append(
            f"{text} {compared(study, size, papers_row(printed, size, study, row), theirs, row.arm, reached, cost)}"
        )
    base = relative[rows[0].label]
    worst = max(base)
    last, own = papers_at(theirs, study.stretch(worst)), papers_at(theirs, 1)
    beyond = f" (the paper's {size}: {_over(last, own)} times)" if last and own and worst > study.window else ""
    worse = f"{base[worst].cell.plain} times its perplexity within its window{beyond}"
    return [*said, f"The base at {worst} tokens: {worse}."]


def compared(
    study: Study, size: str, theirs: Sequence[float | None], base: Sequence[float | None], arm: Arm, reached: Change,
    cost: Change,
) -> str:  # fmt: skip
    """The paper's two figures for an arm, each with its verdict. `theirs` and `base` are its rows of the arm and the base."""
    first, last, own = papers_at(theirs, 1), papers_at(theirs, study.stretch(arm.target)), papers_at(base, 1)
    if not first or not last:
        return "The paper has no such row."
    steps = f", direct tuning after {DIRECT_STEPS:,} steps against PI's {PI_STEPS:,}," if arm.method == "none" else ""
    text = f"The paper's {size}{steps} has {last / first:.3f} (direction: {direction(reached, last / first)})"
    if not own:
        return f"{text}."
    return f"{text} and {first / own:.3f} (direction: {direction(cost, first / own)})."


def facts(
    study: Study, rows: Sequence[Row], relative: Mapping[str, Mapping[int, Change]],
    within: Mapping[str, Mapping[int, Change]],
) -> dict[str, Any]:  # fmt: skip
    """By target and method: perplexities, their change from the original window on, and the cost there."""
    told: dict[str, Any] = {
        "window": study.window,
        "steps": study.steps,
        "base": _plain(perplexities(rows[0].run)),
        "arms": [],
    }
    for row in rows[1:]:
        assert row.arm is not None
        told["arms"].append(
            {
                "method": row.arm.method, "target": row.arm.target, "perplexity": _plain(perplexities(row.run)),
                "doublings": [found.plain() for found in doublings(row)],
                "within": {str(n): found.plain() for n, found in within[row.label].items()},
                "cost": relative[row.label][study.window].plain(),
            }
        )  # fmt: skip
    return told


def _plain(values: Mapping[int, float]) -> dict[str, float]:
    return {str(length): value for length, value in values.items()}
