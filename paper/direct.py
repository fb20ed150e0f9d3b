"""What decides whether direct tuning reaches a longer window: a small grid, which the paper does not have.

The paper's direct tuning of LLaMA stays near the old window for 10,000 steps. A model of two million parameters can learn
positions anew in 200. Lines of the grid, each over several learning rates, all with the same rows and 2 x --every steps:

    direct, to 4 x          the model, its rotation left as it is
    direct, to 8 x          a longer stretch
    weaker base, to 4 x     the model after some steps on sources alone at its own window, so that it finds fewer keys
    PI, to 4 x              for contrast: what the same rates do for interpolation

The pilot's rates stand beside that of its pretraining, 1.5e-3 at its height: LLaMA 7B was tuned at a fifteenth of its own
(2e-5 of 3e-4). One seed an arm. The length of pretraining is not varied, so nothing is said of it. The size of the model is, where
--beside gives another model's grid: its direct tuning and its PI stand beside these. Beside the pilot stands the record of one
of half its width, unless another is given (half_width.json; the last three commands made it, in an hour and a half).

    python paper/direct.py
    python paper/direct.py --rates 1e-4,1e-3 --every 100
    python -m ropewalk.pilot.pretrain --heads 3 --out build/half
    python paper/direct.py --model build/half/stage-4 --work build/half-paper --out build/half-results
    cp build/half-results/direct.json paper/half_width.json
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from grid import DIRECT, PI, STRETCH, WEAKER, Other, Row, against, findings, other_of, pictures, size
from options import run, study_of, table_options
from part import Cell, Part, Table, write_part
from readings import Keys, keys_of, perplexities, perplexity_cell
from study import Arm, Study
from table4 import own_window, require_room

import ropewalk
from ropewalk.checkpoint.folder import PILOT
from ropewalk.pilot.corpus import training_texts
from ropewalk.record import write_text
from ropewalk.train.recipe import default_learning_rate

RATES = (1e-4, 3e-4, 1e-3)
PRETRAINING = 1.5e-3  # the height of the pilot's last stage (pilot/pretrain.py)
LLAMA = 2e-5 / 3e-4  # of LLaMA 7B: the paper's rate over that of its pretraining
SOURCES = 3_000_000  # characters of sources that the weaker base is made on
# What the usual rate is multiplied by for that. Of 200 keys, 120 steps leave the pilot 192 at the rate itself, 125 at 1.4 times
# the rate, 35 at 1.7 times and 3 at twice.
WEAKENING = 1.7
HALF_WIDTH = Path(__file__).parent / "half_width.json"


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
        learning_rate=WEAKENING * usual_rate(study), save_every=study.every, allow_short_documents=True, seed=study.seed, resume=True,
        progress=study.progress,
    )  # fmt: skip
    return out


def lines_of(study: Study, rates: Sequence[float], steps: int) -> list[tuple[str, str, list[Arm]]]:
    """The lines of the grid, each with what it varies; the longer stretch and the weaker base without the lowest rate.

    With one target there is no longer stretch.
    """
    near, far = study.targets[0], study.targets[-1]
    upper = list(rates[1:]) or list(rates)
    weak = weaker_base(study, steps)
    lines = [
        (DIRECT, f"direct, to {near}", [_arm(study, "none", near, rate) for rate in rates]),
        (STRETCH, f"direct, to {far}", [_arm(study, "none", far, rate) for rate in upper]),
        (WEAKER, f"weaker base, to {near}", [_arm(study, "none", near, rate, weak) for rate in upper]),
        (PI, f"PI, to {near}", [_arm(study, "pi", near, rate) for rate in rates]),
    ]
    return [line for line in lines if line[0] != STRETCH or far != near]


def usual_rate(study: Study) -> float:
    """That of the tables' arms: as given, or the recipe's for the size."""
    return study.rate or default_learning_rate(study.base.parameters)


def _arm(study: Study, method: str, target: int, rate: float, base: Path | None = None) -> Arm:
    """The arm of the tables where it has this rate, so that it is tuned once."""
    if base is None and rate == usual_rate(study):
        return Arm(method, target)
    return Arm(method, target, tag=f"{rate:g}" + ("-weaker" if base else ""), rate=rate, base=base)


def rows_of(study: Study, rates: Sequence[float]) -> list[Row]:
    """Every cell. Raises DataError, before anything is tuned, where a target has no room for the passkey's prompt."""
    require_room(study)
    steps = min(2 * study.every, study.steps)
    rows = []
    for factor, line, arms in lines_of(study, rates, steps):
        for arm in arms:
            mine = study if arm.rate is None else replace(study, steps=steps)
            found = mine.measured(arm, steps)
            keys = keys_of(found)
            assert keys is not None  # require_room has looked
            rate, value = arm.rate or usual_rate(study), perplexities(found)[arm.target]
            rows.append(Row(line, factor, arm.target, rate, value, perplexity_cell(found, arm.target), keys))
    return rows


def bases(study: Study, strong: Keys | None, others: Sequence[Other]) -> list[str]:
    """How many keys each base finds within its own window, in words. `strong`: those of the study's model."""
    if strong is None:
        return []
    weak = replace(study, model=str(study.work / "weaker-base"), work=study.work / "weaker")
    forgot = own_window(weak)
    name = "the pilot" if study.model == PILOT else Path(study.model).name
    said = [f"{strong.found} of {strong.of} by {name} ({size(study.base.parameters)} parameters)"]
    said += [f"{forgot.found} of {forgot.of} by the weaker base"] if forgot else []
    said += [
        f"{other.own[0]} of {other.own[1]} by the model of {size(other.parameters)}" for other in others if other.own
    ]
    return [f"Keys found within the original window: {', '.join(said)}."]


def grid(study: Study, rows: Sequence[Row], steps: int, others: Sequence[Other]) -> Table:
    """The cells; beside the pilot's rates, what share of its pretraining's they are."""
    shares = study.model == PILOT
    cells: list[list[str | Cell]] = [
        [row.line, f"{row.rate:g}", *([f"{row.rate / PRETRAINING:.2g}"] if shares else []), row.cell, row.keys.cell]
        for row in [*rows, *(row for other in others for row in other.rows)]
    ]
    columns = [
        "",
        "learning rate",
        *(["of the pilot's pretraining's"] if shares else []),
        "perplexity at the target",
        "k_max",
    ]
    note = f"{steps} steps each, one seed."
    note += f" LLaMA 7B in the paper: {LLAMA:.2g} of pretraining's rate." if shares else ""
    for other in others:
        note += f" The rows of {size(other.parameters)} are of another model, with a window of {other.window}, after {other.steps} steps, from the record of its own run."
    note += " Perplexities of models with other tokenizers do not compare; keys do." if others else ""
    return Table("The grid", columns, cells, note)


def table(study: Study, rates: Sequence[float], out: Path, beside: Sequence[Path] = ()) -> Part:
    others = [other_of(path) for path in beside]
    rows, own = rows_of(study, rates), own_window(study)
    steps, parameters = min(2 * study.every, study.steps), study.base.parameters
    facts = {"rows": [row.plain() for row in rows], "steps": steps, "parameters": parameters, "window": study.window}
    facts["own"] = [own.found, own.of] if own else None
    shown = [replace(row, line=f"{row.line}, {size(parameters)}") for row in rows] if others else rows
    every = [*shown, *(row for other in others for row in other.rows)]
    return Part(
        "direct", "Beyond the paper: what decides whether direct tuning reaches the window",
        "The paper finds that direct tuning hardly reaches beyond the old window. Which of its circumstances make it so?",
        tables=[grid(study, shown, steps, others)],
        figures=pictures(every, out, PRETRAINING * LLAMA if study.model == PILOT else None),
        findings=[*bases(study, own, others), *findings(rows), *(against(rows, parameters, other) for other in others)], facts=facts,
    )  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    parser = table_options(__doc__)
    parser.add_argument("--rates", type=_rates, default=RATES, help="learning rates (1e-4,3e-4,1e-3)")
    parser.add_argument("--beside", type=Path, action="append", default=[], help="direct.json of another model's grid")
    given = parser.parse_args(arguments)
    study = study_of(given)
    write_part(table(study, given.rates, given.out, beside_of(study, given.beside)), given.out)


def beside_of(study: Study, given: Sequence[Path]) -> Sequence[Path]:
    """What is asked for; nothing asked, the record that lies here, whose steps are those of the tables, beside the pilot."""
    return given or ([HALF_WIDTH] if study.model == PILOT else [])


def _rates(text: str) -> tuple[float, ...]:
    rates = tuple(sorted(float(part) for part in text.split(",")))
    if not rates or not all(0 < rate < 1 for rate in rates):
        raise argparse.ArgumentTypeError("give numbers between 0 and 1, such as 1e-4,1e-3")
    return rates


if __name__ == "__main__":
    run(main)
