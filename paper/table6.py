"""Table 6 of the paper: summaries of long documents, ROUGE-1, -2 and -L, after tuning the interpolated model for them.

With --data, a folder with gov_report.jsonl, and --pairs, a file of reports and summaries to tune on (docs/tuning.md): the
prompt, the sampling and the cuts of the paper, at the shortest of --windows (16k is the paper's); --documents says how many
are measured, and --summary-steps how long is tuned, where the paper has 972 documents and ten epochs. Without the two,
functions of the standard library's sources stand for reports and the first paragraph of their docstrings for summaries: those
of the pilot's corpus to tune on, those of its held-out modules to measure on. A model of two million parameters will not
summarize, so what the rows tell is whether tuning at the longer window takes hold, not how well people are served.

    python paper/table6.py
    python paper/table6.py --model llama-7b --tune-on pile --windows 16k --steps 1000 --every 200 \\
        --data tasks --pairs gov_report_train.jsonl --summary-steps 2700

Needs pip install 'ropewalk[evals]'.
"""

from pathlib import Path
from typing import Any

from items import pairs, write_lines
from options import require_counts, run, study_of, table_options
from part import Cell, Part, Table, write_part
from printed import TABLE_6
from study import Arm, Study

import ropewalk
from ropewalk.errors import DataError
from ropewalk.pilot.corpus import heldout_modules, training_texts
from ropewalk.record import Run
from ropewalk.text.summaries import HEAD, TAIL

STEPS, DOCUMENTS = 60, 16
METRICS = ("rouge1", "rouge2", "rougeL")


def made_pairs(study: Study, target: int, count: int, documents: int) -> tuple[Path, Path]:
    """Files of pairs to tune on and, in a folder of task files, to measure on. Each report has more tokens than the
    original window has left for one, so that the longer window is needed; it fits the target with its summary."""
    folder = study.work / "texts" / f"pairs-{target}-{count}-{documents}"
    train, test = folder / "train.jsonl", folder / "gov_report.jsonl"
    if not train.exists():
        frame = len(study.codec.document(HEAD + TAIL))
        bounds = min(study.window - frame, target // 4), target // 2 - frame
        folder.mkdir(parents=True, exist_ok=True)
        held_out = pairs(study.codec, (module.text for module in heldout_modules()), *bounds)
        write_lines(test, (pair for pair, _ in zip(held_out, range(documents), strict=False)))
        corpus = pairs(study.codec, training_texts(study.seed), *bounds)
        write_lines(train, (pair for pair, _ in zip(corpus, range(count), strict=False)))
    return train, folder


def measured(study: Study, arm: Arm, train: Path, folder: Path, steps: int, documents: int) -> list[tuple[str, Run]]:
    """PI as it was tuned for the window, and after `steps` steps on summaries."""
    model, out = study.at_step(arm, study.steps), study.work / arm.name
    given: dict[str, Any] = {
        "tasks": ["govreport"], "task_files": folder, "limit": documents, "seed": study.seed, "resume": True,
        "progress": study.progress,
    }  # fmt: skip
    batch = None if study.batch_tokens is None else max(1, study.batch_tokens // arm.target) * arm.target
    before = ropewalk.evaluate(model, out=out / "eval" / "summaries-before", **given)
    tuned = out / "summaries"
    ropewalk.tune(
        model, out=tuned, data=[train], recipe="summaries", steps=steps, batch_tokens=batch, learning_rate=study.rate,
        seed=study.seed, resume=True, progress=study.progress,
    )  # fmt: skip
    after = ropewalk.evaluate(tuned, out=out / "eval" / "summaries-after", **given)
    return [
        (f"PI, to {arm.target}, before", before),
        (f"PI, to {arm.target}, tuned on {steps} steps of summaries", after),
    ]


def table(study: Study, data: list[str] | None, given_pairs: Path | None, steps: int, documents: int) -> Part:
    target = study.targets[0]
    batch = max(1, (study.batch_tokens or 4 * target) // target)
    if data is None or given_pairs is None:  # both, as main has seen to
        train, folder = made_pairs(study, target, steps * batch, documents)
    else:
        train, folder = given_pairs, Path(data[0])
    rows = measured(study, Arm("pi", target), train, folder, steps, documents)
    lines = [[label, *(_cell(found, metric) for metric in METRICS)] for label, found in rows]
    lines += [[f"the paper: {name}", *(f"{value:.1f}" for value in values)] for name, values in TABLE_6.items()]
    first, last = (_value(found, "rouge1") for _, found in rows)
    mine = data is None
    note = "F-measures of 100 ± one standard error over documents. " + (
        "Ours are of functions and their docstrings: not comparable with the paper's, which are of GovReport."
        if mine
        else ""
    )
    finding = (
        f"Tuning on summaries moves ROUGE-1 from {first[0]:.1f} to {last[0]:.1f}. "
        + ("That the figure is low says that the pilot does not summarize." if mine and last[0] < 30 else "")
    ).strip()
    title = "Table 6: summaries" + (" (functions and their docstrings)" if mine else "")
    lede = f"{documents} documents; the prompt, the sampling and the cuts are the paper's, at {target} tokens."
    facts = {"before": first[0], "after": last[0]}
    return Part("table6", title, lede, [Table("ROUGE", ["", *METRICS], lines, note)], findings=[finding], facts=facts)


def _value(found: Run, metric: str) -> tuple[float, float]:
    row = next(r for r in found.results if r.name == "govreport" and r.metric == metric)
    return row.value or 0.0, row.stderr or 0.0


def _cell(found: Run, metric: str) -> Cell:
    value, error = _value(found, metric)
    return Cell(f"{value:.1f}", f"± {error:.1f}")


def main(arguments: list[str] | None = None) -> None:
    parser = table_options(__doc__)
    parser.add_argument("--pairs", type=Path, default=None, help="reports and summaries to tune on (made from sources)")
    parser.add_argument("--summary-steps", type=int, default=STEPS, help="steps on summaries (%(default)s)")
    parser.set_defaults(documents=DOCUMENTS)
    given = parser.parse_args(arguments)
    if (given.data is None) != (given.pairs is None):
        there, lacks = ("--data", "--pairs") if given.pairs is None else ("--pairs", "--data")
        raise DataError(
            f"{there} is given without {lacks}.\n"
            "  Both are of one data set: --pairs to tune on, --data a folder with gov_report.jsonl to measure on.\n"
            "  Give both, or neither for functions and their docstrings."
        )
    require_counts(given, "summary_steps")
    data, given.data = given.data, None
    steps, documents = (2, 2) if given.quick else (given.summary_steps, given.documents)
    study = study_of(given)
    write_part(table(study, data, given.pairs, steps, documents), given.out)


if __name__ == "__main__":
    run(main)
