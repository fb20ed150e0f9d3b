"""Table 5 of the paper: what a longer window costs in short tasks, zero-shot, each model run with its own rotation.

With --data, a folder of task files (boolq.jsonl, piqa.jsonl, race-middle.jsonl, race-high.jsonl, winogrande.jsonl; see
docs/protocols.md) or `hub`. Without it, cloze items from the pilot's held-out modules in the forms of PIQA, RACE and
WinoGrande: they tell a model of two million parameters from chance, which the real tasks do not, and compare with nothing in
the paper but the sign of a change. Changes are paired, item by item, in percentage points.

    python paper/table5.py
    python paper/table5.py --model llama-7b --tune-on pile --data hub --windows 8k,16k,32k --steps 1000 --every 200

Needs pip install 'ropewalk[evals]'.
"""

from pathlib import Path

from items import write_items
from options import require_counts, run, study_of, table_options
from part import Cell, Part, Table, write_part
from printed import ORIGINAL, SHORT_TASKS, TABLE_5, beside
from study import Arm, Study

import ropewalk
from ropewalk.pilot.corpus import heldout_modules
from ropewalk.record import EvalResult, Run

ITEMS = 200
HUB = "hub"
CHANCE = {"boolq": 50, "piqa": 50, "race-middle": 25, "race-high": 25, "winogrande": 50}
NO_BOOLQ = "no item: a question with yes or no about a passage cannot be made of sources alone"


def task_folder(study: Study, data: list[str] | None, items: int) -> tuple[Path | None, list[str]]:
    """Where the items are (None: the hub), and which tasks there are items for."""
    if data is None:
        texts = [module.text for module in heldout_modules()]
        folder = study.work / "texts" / f"items-{study.window}-{items}"
        if not (folder / "race-high.jsonl").exists():  # the last to be written
            write_items(folder, study.codec, texts, study.window, items, study.seed)
        return folder, ["piqa", "race-middle", "race-high", "winogrande"]
    return (None if data == [HUB] else Path(data[0])), list(SHORT_TASKS)


def measured(study: Study, folder: Path | None, tasks: list[str]) -> list[tuple[str, int, Run]]:
    """The base, and PI at every target, with its changes against the base."""
    given = {"tasks": tasks, "task_files": folder, "seed": study.seed, "resume": True, "progress": study.progress}
    against = study.work / "base" / "eval" / "tasks"
    rows = [("the base", study.window, ropewalk.evaluate(study.model, out=against, **given))]
    for target in study.targets:
        arm = Arm("pi", target)
        out = study.work / arm.name / "eval" / "tasks"
        found = ropewalk.evaluate(study.at_step(arm, study.steps), out=out, against=against, **given)
        rows.append((f"PI, to {target}", target, found))
    return rows


def table(study: Study, data: list[str] | None, items: int) -> Part:
    folder, tasks = task_folder(study, data, items)
    rows = measured(study, folder, tasks)
    size, same = beside(study.base.parameters, study.window)
    lines, said, facts = [], [], {}
    for label, target, found in rows:
        theirs = TABLE_5.get(
            (size, round(ORIGINAL * study.stretch(target)), "none" if target == study.window else "Pile")
        )
        lines.append([label, *(_cell(found, task, theirs, tasks, size) for task in SHORT_TASKS)])
        changes = [row for row in found.results if row.metric == "accuracy_change"]
        if changes:
            said.append(_finding(label, changes))
            facts[str(target)] = {row.name: {"change": row.value, "stderr": row.stderr} for row in changes}
    mine = data is None
    what = (
        "cloze items from held-out Python modules, not the paper's tasks"
        if mine
        else "the paper's tasks, through lm_eval"
    )
    columns = ["", *(f"{task}{' form' if mine else ''} (chance {CHANCE[task]})" for task in SHORT_TASKS)]
    note = (
        f"Per cent right ± one standard error, and the change against the base, paired by item. Below: the paper's {size}"
        + (", in its own tasks." if mine or not same else ".")
        + (" Of BoolQ's form there is no item: " + NO_BOOLQ.split(": ")[1] + "." if mine else "")
    )
    return Part(
        "table5", "Table 5: short tasks", f"Items: {what}; {items if mine else 'all'} a task. All fit the original window.",
        tables=[Table("Zero-shot, per cent right", columns, lines, note)], findings=said, facts={"changes": facts},
    )  # fmt: skip


def _cell(found: Run, task: str, theirs, tasks: list[str], size: str) -> Cell:
    paper = "" if theirs is None else f"paper {theirs[SHORT_TASKS.index(task)]:.1f}"
    if task not in tasks:
        return Cell("–", "no item", paper)
    row = next(r for r in found.results if r.name == task and r.metric == "accuracy")
    change = next((r for r in found.results if r.name == task and r.metric == "accuracy_change"), None)
    by = "" if change is None else f", {change.value:+.1f} ± {change.stderr or 0:.1f}"
    return Cell(f"{100 * (row.value or 0):.1f}", f"± {100 * (row.stderr or 0):.1f}{by}", paper)


def _finding(label: str, changes: list[EvalResult]) -> str:
    lost = [row.name for row in changes if row.details["interval_95"][1] < 0]
    gained = [row.name for row in changes if row.details["interval_95"][0] > 0]
    words = (
        f"{label}: beyond noise it loses in {', '.join(lost) or 'no task'}, gains in {', '.join(gained) or 'none'}; "
    )
    worst = min(changes, key=lambda row: row.value or 0)
    return words + (
        f"the largest fall is {abs(min(worst.value or 0, 0)):.1f} points ({worst.name}). The paper's 7B falls by up to 2.9 points "
        "at four times the window, 6.3 at eight."
    )


def main(arguments: list[str] | None = None) -> None:
    parser = table_options(__doc__)
    parser.add_argument(
        "--items", type=int, default=ITEMS, help="cloze items a form, where none are given (%(default)s)"
    )
    given = parser.parse_args(arguments)
    require_counts(given, "items")
    data, given.data = given.data, None
    write_part(table(study_of(given), data, 8 if given.quick else given.items), given.out)


if __name__ == "__main__":
    run(main)
