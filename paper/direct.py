"""What decides whether direct tuning reaches a longer window: a small grid, which the paper does not have.

The paper's direct tuning of LLaMA stays near the old window for 10,000 steps. A model of two million parameters can learn
positions anew in 200. Lines of the grid, each over several learning rates, all with the same rows and 2 x --every steps:

    direct, to 4 x          the pilot, its rotation left as it is
    direct, to 8 x          a longer stretch
    weaker base, to 4 x     the pilot after some steps on sources alone at its own window, so that it finds fewer keys
    PI, to 4 x              for contrast: what the same rates do for interpolation

Rates stand beside that of pretraining, 1.5e-3 at its height: LLaMA 7B was tuned at a fifteenth of its own (2e-5 of 3e-4).
One seed an arm; sizes of model and the length of pretraining are not varied, so nothing is said of them.

    python paper/direct.py
    python paper/direct.py --rates 1e-4,1e-3 --every 100
"""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from drawing import saved
from options import run, study_of, table_options
from part import Cell, Part, Table, write_part
from readings import Keys, keys_of, perplexities, perplexity_cell
from study import Arm, Study
from table4 import own_window

import ropewalk
from ropewalk.pilot.corpus import training_texts
from ropewalk.record import Run, write_text
from ropewalk.reports.figures import Figure
from ropewalk.reports.lines import Axis, Line, Mark, Rule
from ropewalk.reports.standalone import HALF_ALONE
from ropewalk.reports.svg import log_ticks

RATES = (1e-4, 3e-4, 1e-3)
PRETRAINING = 1.5e-3  # the height of the pilot's last stage (pilot/pretrain.py)
LLAMA = 2e-5 / 3e-4  # of LLaMA 7B: the paper's rate over that of its pretraining
SOURCES = 3_000_000  # characters of sources that the weaker base is made on


@dataclass(frozen=True)
class Row:
    """One cell of the grid."""

    line: str
    target: int
    rate: float
    run: Run
    keys: Keys

    @property
    def share(self) -> float:
        return self.keys.found / self.keys.of


def sources(study: Study) -> Path:
    """The pilot's sources without its passkey documents and copies, as one file."""
    path = study.work / "texts" / "sources.jsonl"
    if not path.exists():
        kept, size = [], 0
        for text in training_texts(study.seed):
            kept.append(json.dumps({"text": text}) + "\n")
            size += len(text)
            if size > SOURCES:
                break
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, "".join(kept))
    return path


def weaker_base(study: Study, steps: int) -> Path:
    """The model after some steps on sources alone at its own window: what it does not read there it forgets."""
    out = study.work / "weaker-base"
    batch = None if study.batch_tokens is None else max(1, study.batch_tokens // study.window) * study.window
    ropewalk.tune(
        study.model, out=out, data=[sources(study)], steps=steps, length=study.window, batch_tokens=batch,
        learning_rate=study.rate, save_every=study.every, allow_short_documents=True, seed=study.seed, resume=True,
        progress=study.progress,
    )  # fmt: skip
    return out


def lines_of(study: Study, rates: Sequence[float], steps: int) -> list[tuple[str, list[Arm]]]:
    """The lines of the grid; the longer stretch and the weaker base without the lowest rate."""
    near, far = study.targets[0], study.targets[-1]
    upper = list(rates[1:]) or list(rates)
    weak = weaker_base(study, steps)
    return [
        (f"direct, to {near}", [_arm(study, "none", near, rate) for rate in rates]),
        (f"direct, to {far}", [_arm(study, "none", far, rate) for rate in upper]),
        (f"weaker base, to {near}", [_arm(study, "none", near, rate, weak) for rate in upper]),
        (f"PI, to {near}", [_arm(study, "pi", near, rate) for rate in rates]),
    ]


def _arm(study: Study, method: str, target: int, rate: float, base: Path | None = None) -> Arm:
    """The arm of the tables where it has this rate, so that it is tuned once."""
    if base is None and rate == (study.rate or 1e-3):
        return Arm(method, target)
    return Arm(method, target, tag=f"{rate:g}" + ("-weaker" if base else ""), rate=rate, base=base)


def rows_of(study: Study, rates: Sequence[float]) -> list[Row]:
    steps = min(2 * study.every, study.steps)
    rows = []
    for line, arms in lines_of(study, rates, steps):
        for arm in arms:
            mine = study if arm.rate is None else replace(study, steps=steps)
            found = mine.measured(arm, steps)
            keys = keys_of(found)
            assert keys is not None  # the targets have room for the prompt: own_window and table4 have looked
            rows.append(Row(line, arm.target, arm.rate or study.rate or 1e-3, found, keys))
    return rows


def bases(study: Study) -> list[str]:
    """How many keys each base finds within its own window, in words."""
    said = []
    strong = own_window(study)
    if strong is None:
        return said
    weak = replace(study, model=str(study.work / "weaker-base"), work=study.work / "weaker")
    forgot = own_window(weak)
    said.append(
        f"Keys found within the original window: {strong.found} of {strong.of} by the pilot"
        + (f", {forgot.found} of {forgot.of} by the weaker base." if forgot else ".")
    )
    return said


def findings(rows: Sequence[Row]) -> list[str]:
    """What each factor moves, the others held, in keys found."""
    lines = list(dict.fromkeys(row.line for row in rows))
    said = []
    for line in lines:
        mine = [row for row in rows if row.line == line]
        words = ", ".join(f"{row.share:.0%} at {row.rate:g}" for row in mine)
        said.append(f"{line}: keys found {words}.")
    shared = [row.rate for row in rows if row.line == lines[1]]
    for other, what in ((lines[1], "the longer stretch"), (lines[2], "the weaker base"), (lines[3], "interpolation")):
        pairs = [
            (a.share, b.share, a.rate)
            for a in rows for b in rows
            if a.line == lines[0] and b.line == other and a.rate == b.rate and a.rate in shared
        ]  # fmt: skip
        moved = "; ".join(f"{a:.0%} to {b:.0%} at {rate:g}" for a, b, rate in pairs)
        if moved:
            said.append(f"At the same rate, {what} moves the share of keys from {moved}.")
    return said


def table(study: Study, rates: Sequence[float], out: Path) -> Part:
    rows = rows_of(study, rates)
    cells: list[list[str | Cell]] = [
        [
            row.line,
            f"{row.rate:g}",
            f"{row.rate / PRETRAINING:.2g}",
            perplexity_cell(row.run, row.target),
            row.keys.cell,
        ]
        for row in rows
    ]
    columns = ["", "learning rate", "of pretraining's", "perplexity at the target", "k_max"]
    steps = min(2 * study.every, study.steps)
    facts = [
        {"line": row.line, "rate": row.rate, "perplexity": perplexities(row.run)[row.target], **vars(row.keys)}
        for row in rows
    ]
    note = f"{steps} steps each, one seed. LLaMA 7B in the paper: {LLAMA:.2g} of pretraining's rate."
    return Part(
        "direct", "Beyond the paper: what decides whether direct tuning reaches the window",
        "The paper finds that direct tuning hardly reaches beyond the old window. Which of its circumstances make it so?",
        tables=[Table("The grid", columns, cells, note)],
        figures=[
            _picture(rows, "share of the keys found", lambda row: row.share, False, out / "direct-keys.svg"),
            _picture(rows, "perplexity at the target", _perplexity, True, out / "direct-perplexity.svg"),
        ],
        findings=[*bases(study), *findings(rows)], facts={"rows": facts, "steps": steps},
    )  # fmt: skip


def _perplexity(row: Row) -> float:
    return perplexities(row.run)[row.target]


def _picture(rows: Sequence[Row], what: str, value: Callable[[Row], float], log: bool, path: Path) -> Figure:
    lines, values = [], [value(row) for row in rows]
    for tint, line in enumerate(dict.fromkeys(row.line for row in rows), 1):
        mine = [row for row in rows if row.line == line]
        lines.append(Line(line, tint, tuple(Mark(row.rate, value(row)) for row in mine)))
    rates = sorted({row.rate for row in rows})
    x = Axis("learning rate", rates[0] / 1.8, rates[-1] * 1.1, True, tuple(rates))
    lo, hi = min(values) / 1.1, max(values) * 1.1
    y = (
        Axis(what, lo, hi, True, tuple(log_ticks(lo, hi)))
        if log
        else Axis(what, 0, 1.04, False, (0, 0.25, 0.5, 0.75, 1))
    )
    there = PRETRAINING * LLAMA
    rules = (Rule(there, "the paper's share"),) if rates[0] / 1.8 <= there <= rates[-1] * 1.1 else ()
    return saved(path, lines, x, y, f"{what[0].upper()}{what[1:]} by learning rate.", rules, HALF_ALONE)


def main(arguments: list[str] | None = None) -> None:
    parser = table_options(__doc__)
    parser.add_argument("--rates", type=_rates, default=RATES, help="learning rates (1e-4,3e-4,1e-3)")
    given = parser.parse_args(arguments)
    write_part(table(study_of(given), given.rates, given.out), given.out)


def _rates(text: str) -> tuple[float, ...]:
    rates = tuple(sorted(float(part) for part in text.split(",")))
    if not rates or not all(0 < rate < 1 for rate in rates):
        raise argparse.ArgumentTypeError("give numbers between 0 and 1, such as 1e-4,1e-3")
    return rates


if __name__ == "__main__":
    run(main)
