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

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ropewalk.checkpoint.folder import open_checkpoint
from ropewalk.checkpoint.output import finished_run, folder_status, make_folder, require_outside
from ropewalk.checkpoint.subject import subject_of
from ropewalk.evals.begun import begun_in
from ropewalk.evals.evaluate import evaluate
from ropewalk.evals.passkey import fits
from ropewalk.extension import extend, planned_extension
from ropewalk.given import require_seed, several
from ropewalk.model.load import TextCodec, chosen_device, chosen_dtype, load_codec
from ropewalk.pilot.corpus import PILOT
from ropewalk.progress import Progress, silent
from ropewalk.record import Run, input_file
from ropewalk.reports.page import write_report
from ropewalk.splits import require_splittable, split_texts, written_split
from ropewalk.targets import by_target, require_arms
from ropewalk.text.documents import document_files
from ropewalk.train.recipe import SMALL, resolved_recipe
from ropewalk.train.tune import tune

ARMS = ("pi", "yarn", "none")
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
    to: int | Sequence[int] | None = None,
    method: str | Sequence[str] = ARMS,
    out: str | Path,
    data: str | Path | Sequence[str | Path] | None = None,
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
    data = None if data is None else [str(one) for one in several(data)]
    if data == [PILOT] and not Path(PILOT).exists():
        data = None
    to, method = None if to is None else several(to), several(method)
    require_seed(seed)
    require_splittable(data or ())
    require_arms(to, method)
    given: dict[str, Any] = {
        "model": str(model), "to": to, "method": method, "data": data, "dtype": dtype, "device": device,
        "steps": _plain(steps), "learning_rate": _plain(learning_rate), "seed": seed,
    }  # fmt: skip
    if (finished := finished_run(out, "run", given, resume=resume)) is not None:
        _write_page(out)
        progress.note(f"{out} is finished, since {finished.finished}; here is what it found")
        return finished
    chosen_dtype(dtype, chosen_device(device))  # one that cannot be had is refused here, before any work
    checkpoint = open_checkpoint(model)
    require_outside(out, checkpoint.folder)
    window = checkpoint.rope.window.target
    asked = to or [4 * window]
    targets = sorted(asked)
    for name in method:
        for target in targets:
            planned_extension(model, target, name)  # so is every arm
    usual = SMALL_STEPS if checkpoint.parameters < SMALL else PAPER_STEPS
    steps_at = by_target("--steps", asked, usual if steps is None else steps)
    rates = by_target("--learning-rate", asked, learning_rate)
    for target, count in steps_at.items():
        resolved_recipe(
            "paper", parameters=checkpoint.parameters, length=target, steps=count, learning_rate=rates[target]
        )
    codec = load_codec(checkpoint)
    files = [] if data is None else document_files([Path(d) for d in data])
    split = None if data is None else split_texts(codec, files, max(targets), ", ".join(data))
    inputs = [input_file(file) for file in files]
    begun = begun_in(out, inputs)
    progress.note(f"studying {checkpoint.name}, a window of {window}, at {', '.join(map(str, targets))} tokens")
    make_folder(out)
    record = Run(
        command="run",
        given=given,
        resolved={"subject": subject_of(checkpoint), "to": targets, "methods": method,
                  "steps": list(steps_at.values()), "children": [],
                  "stages": [] if begun is None else begun.resolved.get("stages", [])},
        ropes={"before": checkpoint.positions_for_record()},
        seed=seed,
        inputs=inputs,
    )  # fmt: skip
    arms = _Arms(model, tuple(method), steps_at, rates, window, dtype, device, seed, progress, codec)
    with record.recorded(out):
        texts = (PILOT, PILOT) if split is None else written_split(out / "data", split)
        _do_all(Stages(out, record, progress), arms, *texts)
    _write_page(out)
    return record


def _plain(given: Any) -> Any:
    """As JSON has it."""
    return list(given) if isinstance(given, Sequence) else given


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
        else:
            del options["data"]  # no other task reads it
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


__all__ = ["run"]
