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
from dataclasses import replace
from pathlib import Path
from typing import Any

from method_plots import Row, overviews, picture, shared_axes
from options import run, study_of, table_options
from part import Cell, Part, Table, write_part
from readings import ERRORS, Change, change, document_losses, keys_of, of_stride, perplexities, perplexity_cell, short
from study import Arm, Study

import ropewalk
from ropewalk.errors import CheckpointError, RopeError
from ropewalk.planning.shapes import shape_of
from ropewalk.planning.work import model_flops
from ropewalk.record import Run, read_run
from ropewalk.rope.methods import METHOD_NAMES, METHODS, TABLE_METHOD
from ropewalk.rope.options import rescaled_by

SHARED = ("pi", "none")  # arms of the tables
BUDGET, WINDOWS = 24, 2  # of the search for longrope's divisors
LOOKS = 2  # at a method's tuning


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


def flops_of_step(study: Study, target: int, batch_tokens: int) -> float | None:
    """Forward and backward pass of one step; None for a model of which it is not known."""
    try:
        shape = shape_of(study.base.config, study.base.parameters)
    except CheckpointError:
        return None
    return batch_tokens // target * model_flops(shape, target)


def first_at_level(levels: Mapping[int, Change]) -> tuple[int | None, int | None]:
    """The first step looked at whose perplexity is below the base's level by two errors, and the first not told from it.

    >>> first_at_level({0: Change(1.2, 0.1), 40: Change(-0.3, 0.1), 20: Change(-0.1, 0.1)})
    (40, 20)
    """
    below, even = (next((s for s, one in sorted(levels.items()) if one.sign == sign), None) for sign in (-1, 0))
    return below, even


def row_of(study: Study, method: str, target: int) -> Row:
    """Everything of one method at one target."""
    arm = Arm(method, target, options_of(study, method, target))
    steps, shared = study.every, method in SHARED
    mine = study if shared else replace(study, steps=steps, every=max(1, steps // LOOKS))
    total = mine.steps
    untuned = mine.measured(arm, 0, passkey=False)
    tuned = mine.measured(arm, steps, steps=total)
    names = {0: "texts", steps: "texts"}
    only = {} if shared else {"passkey": False, "lengths": [target], "name": "level"}
    for step in mine.looks:
        if step not in names:
            mine.measured(arm, step, steps=total, **only)
            names[step] = only.get("name", "texts")
    losses = {step: document_losses(mine.evaluation(arm, step, name), target) for step, name in sorted(names.items())}
    base = document_losses(study.evaluation(None), study.window)
    return Row(
        method, target, untuned, tuned, steps, keys_of(tuned),
        cost=change(base, document_losses(study.evaluation(arm, steps), study.window)),
        levels={step: change(base, sums) for step, sums in losses.items()},
        flops=flops_of_step(study, target, read_run(mine.tuned(arm, total)).resolved["batch_tokens"]),
        losses={"untuned": losses[0], "tuned": losses[steps]},
    )  # fmt: skip


def rows_of(study: Study) -> tuple[list[Row], dict[str, str], Run]:
    """Every method at every target; of those that cannot be applied, why; and the base's evaluation."""
    base = study.measured(None, passkey=False, lengths=study.lengths(max(study.targets)))
    rows, reasons = [], {TABLE_METHOD: "for models with a learned table of positions, and this one rotates"}
    for method in METHODS:
        for target in study.targets:
            try:
                rows.append(row_of(study, method, target))
            except RopeError as error:
                reasons[method] = str(error).splitlines()[0].rstrip(".")
    return rows, reasons, base


def table_of(study: Study, target: int, rows: Sequence[Row], reasons: Mapping[str, str]) -> Table:
    lines: list[list[str | Cell]] = []
    for row in rows:
        if row.target != target:
            continue
        lines.append(
            [
                METHOD_NAMES[row.method], perplexity_cell(row.untuned, target), perplexity_cell(row.tuned, target),
                row.keys.cell if row.keys else "no room for the prompt", row.cost.cell,
                work_of(row),
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
    stride = of_stride(study.window, next(row.tuned.resolved["stride"] for row in rows))
    note = (
        "Perplexity at the target ± one standard error over documents. Cost: of the tuned model at the original window over the "
        "base's there, paired. Level: the base's perplexity within its own window; FLOPs of forward and backward passes until the "
        f"first look that is below it by two standard errors, paired. {ERRORS} {stride} Left out: {left_out}."
    )
    return Table(f"To {target}, {study.stretch(target):g} times the window", columns, lines, note)


def work_of(row: Row) -> Cell:
    """FLOPs until the base's level, and where the looks were."""
    below, even = first_at_level(row.levels)
    looked = f"looked at steps {', '.join(map(str, sorted(row.levels)))}"
    if below is None:
        return Cell("not reached" if even is None else f"not told apart from it at step {even}", looked)
    if below == 0:
        return Cell("0: untuned", looked)
    return Cell("unknown for this model" if row.flops is None else f"{below * row.flops:.2g}", looked)


def findings(rows: Sequence[Row], targets: Sequence[int]) -> list[str]:
    said = []
    for target in targets:
        here = [row for row in rows if row.target == target]
        whole = [METHOD_NAMES[row.method] for row in here if row.keys and row.keys.k_max == target]
        words = "; ".join(lowest(here, what) for what in ("untuned", "tuned"))
        said.append(f"To {target}, lowest: {words}. The whole target by k_max: {', '.join(whole) or 'none'}.")
    return said


def lowest(rows: Sequence[Row], what: str) -> str:
    """The method with the lowest perplexity, and those that two standard errors do not tell apart from it."""
    best, *others = sorted(rows, key=lambda row: perplexities(getattr(row, what))[row.target])
    near = [METHOD_NAMES[row.method] for row in others if change(best.losses[what], row.losses[what]).sign == 0]
    text = f"{what} {METHOD_NAMES[best.method]}, {short(perplexities(getattr(best, what))[best.target])}"
    return f"{text} (not told apart: {', '.join(near)})" if near else text


def table(study: Study, out: Path) -> Part:
    rows, reasons, base = rows_of(study)
    axes = shared_axes(study, rows, base)
    pictures = overviews(study, rows, base, axes, out)
    shown = [method for method in METHODS if any(row.method == method for row in rows)]
    facts = [
        {
            "method": row.method, "target": row.target, "untuned": perplexities(row.untuned)[row.target],
            "tuned": perplexities(row.tuned)[row.target], "k_max": row.keys and row.keys.k_max, "cost": row.cost.ratio,
            "flops": row.flops, "levels": {str(step): one.plain() for step, one in row.levels.items()},
        }
        for row in rows
    ]  # fmt: skip
    return Part(
        "methods", "Beyond the tables: every method",
        "The paper has one method; these are its successors, on the same rows and texts. Dashed: untuned.",
        tables=[table_of(study, target, rows, reasons) for target in study.targets],
        figures=[*pictures, *(picture(study, method, rows, base, axes, out) for method in shown)],
        findings=findings(rows, study.targets), facts={"rows": facts},
    )  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    given = table_options(__doc__).parse_args(arguments)
    write_part(table(study_of(given), given.out), given.out)


if __name__ == "__main__":
    run(main)
