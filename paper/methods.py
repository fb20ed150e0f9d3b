"""Beyond the tables: every method through the same measurements, untuned and after a few steps of tuning.

Of each: perplexity at its target and within the original window, untuned and tuned; k_max; and the work (FLOPs) until it
reads the target as well as the base reads its own window. Methods are tuned for --every steps (PI and direct tuning are the
arms of the tables, looked at after as many). One picture a method, over all targets.

    python paper/methods.py
    python paper/methods.py --model llama-7b --data pg19-test --tune-on pile --windows 8k,16k --steps 1000 --every 200

`longrope` needs divisors, which a short search finds first (docs/search.md); `abf` takes the theta that ntk would take for
twice the target, since its own is a choice. `freeze` and `interpolate-table` are for models of other kinds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from drawing import saved
from options import run, study_of, table_options
from part import Cell, Part, Table, figure, write_part
from perplexity_tables import LEFT
from readings import Change, Keys, change, document_losses, keys_of, perplexities, perplexity_cell, short
from study import Arm, Study

import ropewalk
from ropewalk.errors import CheckpointError, RopeError
from ropewalk.planning.shapes import shape_of
from ropewalk.planning.work import model_flops
from ropewalk.record import Run
from ropewalk.reports.figures import Figure
from ropewalk.reports.lines import Axis, Chart, Line, Mark, Rule
from ropewalk.reports.svg import log_ticks, powers_of_two
from ropewalk.rope.methods import METHOD_NAMES, METHODS, TABLE_METHOD
from ropewalk.rope.options import rescaled_by

SHARED = ("pi", "none")  # arms of the tables
BUDGET, WINDOWS = 24, 2  # of the search for longrope's divisors
LOOKS = 2  # at a method's tuning


@dataclass(frozen=True)
class Row:
    """One method at one target. `work` is in FLOPs, until the base's level: 0 untuned, None where it is not reached."""

    method: str
    target: int
    untuned: Run
    tuned: Run
    steps: int
    keys: Keys | None
    cost: Change
    work: float | None
    looked: Sequence[int]


def options_of(study: Study, method: str, target: int) -> dict[str, Any]:
    """What a method cannot do without. Raises RopeError for one that this model's rotation has no use for."""
    rope = study.base.rope
    if method == "abf":
        d = rope.rotary_dim
        return {"theta": rope.theta * (2 * target / rope.window.original) ** (d / (d - 2))}
    if method == "longrope":
        found = ropewalk.search(
            study.model, to=target, out=study.work / f"divisors-{target}", data=list(study.tune_on), budget=BUDGET,
            windows=WINDOWS, seed=study.seed, resume=True,
        )  # fmt: skip
        return {"factors": found.resolved["factors"], "attention_factor": found.resolved["attention_factor"]}
    rescaled_by(method, rope, target, {})
    return {}


def flops_of_step(study: Study, target: int) -> float | None:
    """Forward and backward pass of one step; None for a model of which it is not known."""
    try:
        shape = shape_of(study.base.config, study.base.parameters)
    except CheckpointError:
        return None
    sequences = max(1, (study.batch_tokens or 4 * target) // target)
    return sequences * model_flops(shape, target)


def first_at_level(values: Mapping[int, float], level: float) -> int | None:
    """The first step of those looked at with a value at or below `level`.

    >>> first_at_level({0: 40.0, 20: 12.0, 40: 10.0}, 10.5), first_at_level({0: 40.0}, 10.5)
    (40, None)
    """
    return next((step for step, value in sorted(values.items()) if value <= level), None)


def row_of(study: Study, method: str, target: int, level: float) -> Row:
    """Everything of one method at one target."""
    arm = Arm(method, target, options_of(study, method, target))
    steps, shared = study.every, method in SHARED
    mine = study if shared else replace(study, steps=steps, every=max(1, steps // LOOKS))
    looks, total = mine.looks, mine.steps
    untuned = mine.measured(arm, 0, passkey=False)
    tuned = mine.measured(arm, steps, steps=total)
    values = {0: perplexities(untuned)[target], steps: perplexities(tuned)[target]}
    only = {} if shared else {"passkey": False, "lengths": [target], "name": "level"}
    for step in looks:
        if step not in values:
            values[step] = perplexities(mine.measured(arm, step, steps=total, **only))[target]
    reached, each = first_at_level(values, level), flops_of_step(study, target)
    base = document_losses(study.work / "base" / "eval" / "texts-000000", study.window)
    cost = change(base, document_losses(study.work / arm.name / "eval" / f"texts-{steps:06d}", study.window))
    work = None if reached is None or each is None else reached * each
    return Row(method, target, untuned, tuned, steps, keys_of(tuned), cost, work, sorted(values))


def rows_of(study: Study) -> tuple[list[Row], dict[str, str], Run]:
    """Every method at every target; of those that cannot be applied, why; and the base's evaluation."""
    base = study.measured(None, passkey=False, lengths=study.lengths(max(study.targets)))
    level = perplexities(base)[study.window]
    rows, reasons = [], {TABLE_METHOD: "for models with a learned table of positions, and this one rotates"}
    for method in METHODS:
        for target in study.targets:
            try:
                rows.append(row_of(study, method, target, level))
            except RopeError as error:
                reasons[method] = str(error).splitlines()[0].rstrip(".")
    return rows, reasons, base


def table_of(study: Study, target: int, rows: Sequence[Row], reasons: Mapping[str, str]) -> Table:
    lines: list[list[str | Cell]] = []
    for row in rows:
        if row.target != target:
            continue
        work = "not reached" if row.work is None else "0: untuned" if row.work == 0 else f"{row.work:.2g}"
        lines.append(
            [
                METHOD_NAMES[row.method], perplexity_cell(row.untuned, target), perplexity_cell(row.tuned, target),
                row.keys.cell if row.keys else "no room for the prompt", row.cost.cell,
                Cell(work, f"looked at steps {', '.join(map(str, row.looked))}"),
            ]
        )  # fmt: skip
    left_out = "; ".join(f"{METHOD_NAMES[name]}, {why}" for name, why in reasons.items())
    steps = next(row.steps for row in rows)
    columns = [
        "",
        "untuned",
        f"after {steps} steps",
        "k_max then",
        "cost at the original window",
        "FLOPs to the base's level",
    ]
    note = (
        "Perplexity at the target ± one standard error over documents. Cost: of the tuned model at the original window over the "
        "base's there, paired. Level: the base's perplexity within its own window; FLOPs of forward and backward passes until the "
        f"first look at or below it. Left out: {left_out}."
    )
    return Table(f"To {target}, {study.stretch(target):g} times the window", columns, lines, note)


def picture(study: Study, method: str, rows: Sequence[Row], base: Run, axes: tuple[Axis, Axis]) -> Figure:
    """A method's perplexity by window: dashed untuned, solid tuned, a colour a target, the base in grey."""
    lines = [_line("base", 0, perplexities(base))]
    for tint, row in enumerate((row for row in rows if row.method == method), 1):
        lines.append(_line(f"{row.target}, untuned", tint, perplexities(row.untuned), dashed=True))
        lines.append(_line(f"{row.target}, tuned", tint, perplexities(row.tuned)))
    reach = ", ".join(f"k_max {row.keys.k_max} of {row.target}" for row in rows if row.method == method and row.keys)
    name = METHOD_NAMES[method]
    chart = Chart(tuple(lines), *axes, (Rule(study.window, "window"),), f"{name}: perplexity by window. {reach}.")
    return figure(f"{name}: {reach}" if reach else name, chart)


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


def findings(rows: Sequence[Row], targets: Sequence[int]) -> list[str]:
    said = []
    for target in targets:
        here = [row for row in rows if row.target == target]
        best = {
            what: min(here, key=lambda row, what=what: perplexities(getattr(row, what))[target])
            for what in ("untuned", "tuned")
        }
        whole = [METHOD_NAMES[row.method] for row in here if row.keys and row.keys.k_max == target]
        words = ", ".join(
            f"{METHOD_NAMES[row.method]} {short(perplexities(getattr(row, what))[target])} {'untuned' if what == 'untuned' else 'tuned'}"
            for what, row in best.items()
        )
        said.append(f"To {target}, lowest: {words}. The whole target by k_max: {', '.join(whole) or 'none'}.")
    return said


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


def table(study: Study, out: Path) -> Part:
    rows, reasons, base = rows_of(study)
    axes = shared_axes(study, rows, base)
    pictures = overviews(study, rows, base, axes, out)
    shown = [method for method in METHODS if any(row.method == method for row in rows)]
    facts = [
        {
            "method": row.method, "target": row.target, "untuned": perplexities(row.untuned)[row.target],
            "tuned": perplexities(row.tuned)[row.target], "k_max": row.keys and row.keys.k_max, "cost": row.cost.ratio,
            "flops": row.work,
        }
        for row in rows
    ]  # fmt: skip
    return Part(
        "methods", "Beyond the tables: every method",
        "The paper has one method; these are its successors, on the same rows and texts. Dashed: untuned.",
        tables=[table_of(study, target, rows, reasons) for target in study.targets],
        figures=[*pictures, *(picture(study, method, rows, base, axes) for method in shown)],
        findings=findings(rows, study.targets), facts={"rows": facts},
    )  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    given = table_options(__doc__).parse_args(arguments)
    write_part(table(study_of(given), given.out), given.out)


if __name__ == "__main__":
    run(main)
