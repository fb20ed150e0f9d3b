"""Table 3 of the paper: perplexity of Position Interpolation by tuning step, at the target's own window.

One run an arm; the values between are of its saves, of which `study.write_step` makes checkpoints. Step 0 is the extended
model as it is. The paper's 7B stands beside it at the same share of the steps.

    python paper/table3.py --steps 240 --every 60
    python paper/table3.py --model llama-7b --data pg19-test --tune-on pile --windows 8k,16k --steps 1000 --every 200
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from options import run, study_of, table_options
from part import Cell, Part, Table, figure, write_part
from printed import ORIGINAL, TABLE_3, beside
from readings import (
    ERRORS,
    Change,
    change,
    document_losses,
    of_stride,
    perplexities,
    perplexity_at,
    perplexity_cell,
    short,
)
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


@dataclass(frozen=True)
class Course:
    """PI's perplexity at one target by step, its change from each look to the next, and from the base's own at each."""

    values: Mapping[int, float]
    between: Sequence[Change]
    from_own: Mapping[int, Change]


def course_of(study: Study, target: int, found: Mapping[int, Run]) -> Course:
    own = document_losses(study.evaluation(None), study.window)
    losses = {step: document_losses(study.evaluation(Arm("pi", target), step), target) for step in found}
    return Course(
        {step: perplexities(one)[target] for step, one in found.items()},
        [change(losses[a], losses[b]) for a, b in pairwise(losses)],
        {step: change(own, sums) for step, sums in losses.items()},
    )


def table(study: Study) -> Part:
    runs = by_step(study)
    size, same = beside(study.base.parameters, study.window)
    base = study.measured(None, passkey=False, lengths=study.lengths(max(study.targets)))
    own = perplexity_at(base, study.window)
    courses = {target: course_of(study, target, found) for target, found in runs.items()}
    rows = []
    for target, found in runs.items():
        printed = TABLE_3.get((size, round(ORIGINAL * study.stretch(target)), "pi"))
        cells: list[str | Cell] = [f"PI, to {target}"]
        for step, evaluated in found.items():
            theirs = papers_at(printed, step, study.steps)
            paper = "" if theirs is None else f"paper {theirs[1]:.2f} at {theirs[0]}"
            value = perplexity_cell(evaluated, target)
            cells.append(Cell(value.text, value.error, paper))
        rows.append(cells)
    stride = of_stride(study.window, base.resolved["stride"])
    note = f"± one standard error over documents. {ERRORS} {stride} Below: the paper's {size}" + (
        "." if same else ", another model on other texts, at the same stretch and share of its 1,000 steps."
    )
    by = {str(t): {str(s): value for s, value in course.values.items()} for t, course in courses.items()}
    level = {str(t): {str(s): one.plain() for s, one in course.from_own.items()} for t, course in courses.items()}
    return Part(
        "table3", "Table 3: perplexity by tuning step",
        "Perplexity at the target's own window, of one run a target, at several of its steps.",
        tables=[
            Table("Ours, by tuning steps", ["", *map(str, study.looks)], rows, note),
            papers_steps(TABLE_3, size, "The paper's, on PG-19"),
        ],
        figures=[_picture(study, runs, own.value)], findings=[finding(target, course, own.value) for target, course in courses.items()], full=True,
        facts={"perplexity": by, "own": own.value, "from_own": level, "steps": study.steps},
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


def finding(target: int, course: Course, own: float | None) -> str:
    """How it falls by the looks, and against the base's own level, by two standard errors of the same documents."""
    steps = list(course.values)
    return (
        f"To {target}: {short(course.values[steps[0]])} untuned, {short(course.values[steps[-1]])} after {steps[-1]} steps; it "
        f"{_falls(course.between)}. Against the base's own {short(own)} it {_level(course.from_own)}. The paper's falls at every "
        "look, and is below the original model's by step 200."
    )


def _falls(between: Sequence[Change]) -> str:
    falls, rises = (sum(one.sign == sign for one in between) for sign in (-1, 1))
    if falls == len(between):
        return "falls at every look"
    rest = len(between) - falls - rises
    said = [f"falls at {falls} of {len(between)} looks", f"rises at {rises}" if rises else ""]
    return ", ".join([*filter(None, said), *([f"is not told apart from the one before at {rest}"] if rest else [])])


def _level(from_own: Mapping[int, Change]) -> str:
    first = {sign: next((step for step, one in from_own.items() if one.sign == sign), None) for sign in (-1, 0)}
    said = [
        *([f"is first not told apart at step {first[0]}"] if first[0] is not None else []),
        *([f"is first below at step {first[-1]}"] if first[-1] is not None else []),
    ]
    if not said:
        return "stays above"
    return " and ".join(said)


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
