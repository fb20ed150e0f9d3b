"""`ropewalk run`: split the texts, measure the base, then extend, tune and measure each arm, and report.

OUT/run.json                      stages with their times, and the folders below
OUT/data/{train,evaluation}.jsonl the split, where texts were given
OUT/base/evaluation               the base model, up to the longest target
OUT/base/own-window               its passkey within its own window
OUT/METHOD-TARGET/extended        the extended checkpoint, untuned
OUT/METHOD-TARGET/untuned         its evaluation (not for `none`: untuned, that is the base)
OUT/METHOD-TARGET/tuned           the tuned checkpoint, its log and saves
OUT/METHOD-TARGET/evaluation      its evaluation
OUT/report.html                   the page
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ropewalk.checkpoint.folder import open_checkpoint
from ropewalk.checkpoint.output import finished_run, folder_status, make_folder, require_outside, whole_folder
from ropewalk.checkpoint.subject import subject_of
from ropewalk.errors import DataError
from ropewalk.evals.evaluate import evaluate
from ropewalk.evals.passkey import fits
from ropewalk.extension import extend, planned_extension
from ropewalk.model.load import TextCodec, load_codec
from ropewalk.pilot.corpus import PILOT
from ropewalk.progress import Progress, silent
from ropewalk.record import Run, input_file, read_run
from ropewalk.reports.page import write_report
from ropewalk.text.documents import Document, document_files, documents
from ropewalk.text.sources import HUB
from ropewalk.train.recipe import SMALL, resolved_recipe
from ropewalk.train.tune import tune

ARMS = ("pi", "yarn", "none")
HELD_OUT = 10  # one in ten documents, or tokens, is for evaluation
REPORT = "report.html"
SMALL_STEPS, PAPER_STEPS = 150, 1000
SMALL_BATCH = 4096  # tokens a step below 100 M parameters: six arms of the pilot in a quarter of an hour


@dataclass
class Stages:
    """Stages of a run, each timed and written down as it ends."""

    out: Path
    run: Run
    progress: Progress

    def stage(self, name: str, folder: str, work: Callable[[Path, bool], Any]) -> Path:
        """Does `work(folder, resume)` unless the folder is finished; gives the folder."""
        path = self.out / folder
        status = folder_status(path)
        if status != "done":
            self.progress.note(f"{name} ...")
            began = time.perf_counter()
            work(path, status not in (None, "empty"))
            seconds = time.perf_counter() - began
            self.progress.note(f"{name}: {seconds:.0f} s")
            self.run.resolved["stages"].append({"name": name, "folder": folder, "seconds": round(seconds, 1)})
        if folder not in self.run.resolved["children"]:
            self.run.resolved["children"].append(folder)
        self.run.write(self.out)
        return path


def run(
    model: str | Path = PILOT,
    *,
    to: Sequence[int] | None = None,
    method: Sequence[str] = ARMS,
    out: str | Path,
    data: Sequence[str | Path] | None = None,
    steps: int | Sequence[int] | None = None,
    learning_rate: float | Sequence[float] | None = None,
    dtype: str | None = None,
    device: str | None = None,
    seed: int = 0,
    resume: bool = False,
    progress: Progress = silent,
) -> Run:
    """The whole way in one call; gives the record, whose "children" are the folders of every stage.

    `to` None: four times the model's window. `data` None: the built-in texts; else the last tenth of the documents
    (of the tokens, if there is one document) is held out for evaluation and never trained on. `steps` and
    `learning_rate` are every arm's, or one number for each target, in their order; None: the recipe's rate, and 1000
    steps, or 150 for a model below 100 M parameters, whose arms take 4,096 tokens a step. Every stage goes on where it stopped with `resume`.

    >>> study = run("pilot", to=[512], method=["pi"], steps=1, out=folder / "study")
    >>> study.resolved["children"]
    ['base/evaluation', 'base/own-window', 'pi-512/extended', 'pi-512/untuned', 'pi-512/tuned', 'pi-512/evaluation']
    """
    out = Path(out)
    if data is not None and [str(d) for d in data] == [PILOT] and not Path(PILOT).exists():
        data = None
    given: dict[str, Any] = {
        "model": str(model), "to": None if to is None else list(to), "method": list(method),
        "data": None if data is None else [str(d) for d in data], "dtype": dtype, "device": device,
        "steps": _plain(steps), "learning_rate": _plain(learning_rate), "seed": seed,
    }  # fmt: skip
    if streamed := [str(one) for one in data or () if str(one).startswith(HUB)]:
        raise DataError(
            f"{streamed[0]} cannot be split.\n"
            "  The last tenth of the texts is held out, so all of them are read; a data set of the hub may have no end.\n"
            "  Give files or folders (parquet ones too), or tune and evaluate a step at a time."
        )
    if (finished := finished_run(out, "run", given, resume=resume)) is not None:
        _write_page(out)
        progress.note(f"{out} is finished, since {finished.finished}; here is what it found")
        return finished
    checkpoint = open_checkpoint(model)
    require_outside(out, checkpoint.folder)
    window = checkpoint.rope.window.target
    targets = sorted(set(to)) if to else [4 * window]
    for name in method:
        for target in targets:
            planned_extension(model, target, name)  # every arm is refused here, before any work
    usual = SMALL_STEPS if checkpoint.parameters < SMALL else PAPER_STEPS
    asked = list(to) if to else targets
    steps_at = _by_target("--steps", asked, usual if steps is None else steps)
    rates = _by_target("--learning-rate", asked, learning_rate)
    for target, count in steps_at.items():
        resolved_recipe(
            "paper", parameters=checkpoint.parameters, length=target, steps=count, learning_rate=rates[target]
        )
    codec = load_codec(checkpoint)
    split = None if data is None else _split(codec, [Path(d) for d in data], max(targets))
    make_folder(out)
    record = Run(
        command="run",
        given=given,
        resolved={"subject": subject_of(checkpoint), "to": targets, "methods": list(method),
                  "steps": list(steps_at.values()), "children": [], "stages": _earlier_stages(out)},
        ropes={"before": checkpoint.positions_for_record()},
        seed=seed,
        inputs=[] if data is None else [input_file(f) for f in document_files([Path(d) for d in data])],
    )  # fmt: skip
    arms = _Arms(model, tuple(method), steps_at, rates, window, dtype, device, seed, progress, codec)
    with record.recorded(out):
        texts = (PILOT, PILOT) if split is None else _written_split(out / "data", split)
        _do_all(Stages(out, record, progress), arms, *texts)
    _write_page(out)
    return record


def _plain(given: Any) -> Any:
    """As JSON has it."""
    return list(given) if isinstance(given, Sequence) else given


def _by_target(name: str, targets: Sequence[int], given: Any) -> dict[int, Any]:
    """One value for each target, the shortest first. Raises DataError when there is neither one for all nor for each."""
    values = list(given) if isinstance(given, Sequence) else [given]
    if len(values) not in (1, len(targets)):
        raise DataError(
            f"{name} has {len(values)} numbers, and there are {len(targets)} targets: {', '.join(map(str, targets))}.\n"
            "  Arms of one target are compared, so each target has a number of its own, or all have the same.\n"
            "  Give one number, or one for each target in their order."
        )
    return dict(sorted(zip(targets, values * (len(targets) // len(values)), strict=True), key=lambda pair: pair[0]))


def _earlier_stages(out: Path) -> list[dict[str, Any]]:
    """The stages that an unfinished run had done, with their times."""
    return [] if folder_status(out) in (None, "empty") else read_run(out).resolved.get("stages", [])


def _write_page(out: Path) -> None:
    """The page of a finished run, if it is not there yet."""
    if not (out / REPORT).exists():
        write_report([out], out / REPORT)


@dataclass(frozen=True)
class _Arms:
    """What every stage of a run needs to know."""

    model: str | Path
    methods: tuple[str, ...]
    steps_at: dict[int, int]  # of each target
    rates: dict[int, float | None]  # likewise
    window: int
    dtype: str | None
    device: str | None
    seed: int
    progress: Progress
    codec: TextCodec

    def lengths(self, target: int) -> list[int]:
        """Half the base window, doubled up to the target, and the target."""
        lengths = [max(2, self.window // 2)]
        while lengths[-1] * 2 < target:
            lengths.append(lengths[-1] * 2)
        return [*lengths, target]

    def evaluate(self, model: str | Path, text: str | Path, target: int, **more: Any) -> Callable[[Path, bool], Run]:
        """A stage that measures `model` up to `target`; every arm is scored on the same cut of the same texts.

        The passkey is left out where its prompt does not fit, which is said once, for the run.
        """
        longest = max(self.steps_at)
        tasks = ["perplexity", "passkey"] if fits(self.codec, target) else ["perplexity"]
        options: dict[str, Any] = {
            "data": [text], "tasks": tasks, "lengths": self.lengths(target), "dtype": self.dtype, "device": self.device,
            "seed": self.seed, "progress": self.progress,
        } | more  # fmt: skip
        if "perplexity" in options["tasks"]:
            options |= {"truncate_tokens": 2 * longest, "max_tokens": 8 * longest}
        return lambda folder, resume: evaluate(model, out=folder, resume=resume, **options)

    def tune(self, model: Path, text: str | Path, target: int) -> Callable[[Path, bool], Run]:
        """A stage that tunes at `target`; small models read as many tokens a step at every target.

        A user's texts may be short: the arms are compared on them as they are, and a warning says what that means.
        """
        sequences = max(1, SMALL_BATCH // target)
        batch = sequences * target if open_checkpoint(model).parameters < SMALL else None
        return lambda folder, resume: tune(
            model, out=folder, data=[text], steps=self.steps_at[target], learning_rate=self.rates[target], batch_tokens=batch, dtype=self.dtype, device=self.device, seed=self.seed,
            allow_short_documents=text != PILOT, resume=resume, progress=self.progress,
        )  # fmt: skip


def _do_all(stages: Stages, arms: _Arms, train: str | Path, held_out: str | Path) -> None:
    longest = max(arms.steps_at)
    stages.stage("evaluate the base", "base/evaluation", arms.evaluate(arms.model, held_out, longest))
    if fits(arms.codec, arms.window):
        stages.stage(
            "passkey within the base's own window",
            "base/own-window",
            arms.evaluate(arms.model, held_out, arms.window, lengths=[arms.window], tasks=["passkey"]),
        )
    else:
        arms.progress.warn(f"the passkey's prompt does not fit into {arms.window} tokens: no passkey there.")
    for target in arms.steps_at:
        for name in arms.methods:
            arm = f"{name}-{target}"
            extended = stages.stage(
                f"extend by {name} to {target}",
                f"{arm}/extended",
                lambda folder, _, name=name, target=target: extend(arms.model, to=target, out=folder, method=name),
            )
            if name != "none":
                stages.stage(
                    f"evaluate {name} at {target}, untuned",
                    f"{arm}/untuned",
                    arms.evaluate(extended, held_out, target, tasks=["perplexity"]),
                )
            tuned = stages.stage(f"tune {name} at {target}", f"{arm}/tuned", arms.tune(extended, train, target))
            stages.stage(
                f"evaluate {name} at {target}, tuned", f"{arm}/evaluation", arms.evaluate(tuned, held_out, target)
            )


def _split(codec: TextCodec, paths: Sequence[Path], longest: int) -> tuple[list[Document], list[Document]]:
    """Documents to train on, and the last tenth to evaluate on; of one document, the last tenth of its tokens.

    A text that is there twice counts once: the second could be among those to evaluate on. All texts are read. Raises DataError when the part to train on is shorter than the longest target.
    """
    kept: dict[str, Document] = {}
    for document in documents(document_files(paths)):
        kept.setdefault(document.sha256, document)
    texts, names = list(kept.values()), ", ".join(map(str, paths))
    if not texts:
        raise DataError(f"no text in {names}: every document is empty.\n  Give texts with --data.")
    if len(texts) == 1:
        text = texts[0].text
        cut = len(text) - len(text) // HELD_OUT
        cut = text.find("\n", cut) + 1 or cut
        parts = [Document(texts[0].name, text[:cut])], [Document(texts[0].name, text[cut:])]
    else:
        cut = len(texts) - max(1, len(texts) // HELD_OUT)
        parts = texts[:cut], texts[cut:]
    size = 0
    for document in parts[0]:
        size += len(codec.document(document.text))
        if size >= longest:
            return parts
    raise DataError(
        f"the text in {names} is too short: {size} tokens are left to train on, and one sequence has {longest}.\n"
        "  The last tenth is held out for evaluation.\n"
        "  Give more text with --data, or a shorter --to."
    )


def _written_split(folder: Path, split: tuple[list[Document], list[Document]]) -> tuple[Path, Path]:
    """The two parts as files, written once, whole or not at all."""
    names = ("train.jsonl", "evaluation.jsonl")
    if not folder.is_dir():
        with whole_folder(folder) as beside:
            for name, part in zip(names, split, strict=True):
                with (beside / name).open("w", encoding="utf-8") as file:
                    file.writelines(json.dumps({"text": d.text, "name": d.name}) + "\n" for d in part)
    return folder / names[0], folder / names[1]


__all__ = ["run"]
