"""Table 3 of the paper: perplexity of Position Interpolation by tuning step, at the target's own window.

One run an arm; the values between are of its saves, of which `study.write_step` makes checkpoints. Step 0 is the extended
model as it is. The paper's 7B stands beside it at the same share of the steps.

    python paper/table3.py --steps 240 --every 60
    python paper/table3.py --model llama-7b --data pg19-test --tune-on pile --windows 8k,16k --steps 1000 --every 200
"""

from collections.abc import Mapping
from itertools import pairwise

from options import run, study_of, table_options
from part import Cell, Part, Table, figure, write_part
from printed import ORIGINAL, TABLE_3, beside
from readings import perplexities, perplexity_at, perplexity_cell, short
from study import LABELS, Arm, Study

from ropewalk.record import Run
from ropewalk.reports.lines import Axis, Chart, Line, Mark, Rule
from ropewalk.reports.svg import linear_ticks, log_ticks

PAPERS_STEPS = 1000


def papers_at(printed: Mapping[int, float] | None, step: int, steps: int) -> tuple[int, float] | None:
    """The paper's step at the same share of its 1,000, if it looked there, and the value."""
    there = round(PAPERS_STEPS * step / steps)
    return None if printed is None or there not in printed else (there, printed[there])


def by_step(study: Study) -> dict[int, dict[int, Run]]:
    """By target, by step: the evaluation of PI."""
    return {
        target: {step: study.measured(Arm("pi", target), step, passkey=step > 0) for step in study.looks}
        for target in study.targets
    }


def table(study: Study) -> Part:
    runs = by_step(study)
    size, same = beside(study.base.parameters, study.window)
    own = perplexity_at(study.measured(None, passkey=False, lengths=study.lengths(max(study.targets))), study.window)
    rows, said = [], []
    for target, found in runs.items():
        printed = TABLE_3.get((size, round(ORIGINAL * study.stretch(target)), "pi"))
        cells: list[str | Cell] = [f"PI, to {target}"]
        for step, evaluated in found.items():
            theirs = papers_at(printed, step, study.steps)
            paper = "" if theirs is None else f"paper {theirs[1]:.2f} at {theirs[0]}"
            value = perplexity_cell(evaluated, target)
            cells.append(Cell(value.text, value.error, paper))
        rows.append(cells)
        said.append(_finding(target, {step: perplexities(one)[target] for step, one in found.items()}, own.value or 0))
    note = f"± one standard error over documents. Below: the paper's {size}" + (
        "." if same else ", another model on other texts, at the same stretch and share of its 1,000 steps."
    )
    by = {str(t): {str(s): perplexities(one)[t] for s, one in found.items()} for t, found in runs.items()}
    return Part(
        "table3", "Table 3: perplexity by tuning step",
        "Perplexity at the target's own window, of one run a target, at several of its steps.",
        tables=[
            Table("Ours, by tuning steps", ["", *map(str, study.looks)], rows, note),
            papers_steps(TABLE_3, size, "The paper's, on PG-19"),
        ],
        figures=[_picture(study, runs, own.value)], findings=said, full=True,
        facts={"perplexity": by, "own": own.value, "steps": study.steps},
    )  # fmt: skip


def papers_steps(printed: Mapping[tuple[str, int, str], Mapping[int, float]], size: str, title: str) -> Table:
    """The paper's own rows of a model, by its steps."""
    rows = {key: values for key, values in printed.items() if key[0] == size}
    steps = sorted({step for values in rows.values() for step in values})
    lines = [
        [f"{key[0]}, {LABELS[key[2]]}, to {key[1]}", *(f"{values[s]:g}" if s in values else "–" for s in steps)]
        for key, values in rows.items()
    ]
    return Table(title, ["", *map(str, steps)], lines)


def _finding(target: int, values: Mapping[int, float], own: float) -> str:
    reached = next((step for step, value in values.items() if value <= own), None)
    steps = list(values)
    ever = "falls at every look" if all(values[b] < values[a] for a, b in pairwise(steps)) else (
        "does not fall at every look"
    )  # fmt: skip
    level = f"is first at or below the base's own {short(own)} at step {reached}" if reached is not None else (
        f"stays above the base's own {short(own)}"
    )  # fmt: skip
    return (
        f"To {target}: {short(values[0])} untuned, {short(values[steps[-1]])} after {steps[-1]} steps; it {ever} and {level}. "
        "The paper's falls at every look, and is below the original model's by step 200."
    )


def _picture(study: Study, runs: Mapping[int, Mapping[int, Run]], own: float | None):
    lines = tuple(
        Line(f"PI, to {target}", tint, tuple(Mark(s, min(perplexities(r)[target], 1e6)) for s, r in found.items()))
        for tint, (target, found) in enumerate(runs.items(), 1)
    )
    values = [mark.y for line in lines for mark in line.marks] + ([own] if own else [])
    lo, hi = min(values) / 1.1, max(values) * 1.1
    y = Axis("perplexity at the target (lower is better)", lo, hi, True, tuple(log_ticks(lo, hi)))
    x = Axis("tuning step", 0, study.steps, False, tuple(linear_ticks(0, study.steps, 4)))
    rules = (Rule(own, "the base, its own window", True),) if own else ()
    return figure("Perplexity by tuning step", Chart(lines, x, y, rules, "Perplexity by tuning step."), half=False)


def main(arguments: list[str] | None = None) -> None:
    given = table_options(__doc__).parse_args(arguments)
    write_part(table(study_of(given)), given.out)


if __name__ == "__main__":
    run(main)
