"""The arms that the tables share: each is extended and tuned once, measured at several of its steps, and kept in one folder.

Everything is done by Ropewalk's verbs and goes on where it stopped. The weights between a run's begin and its end are
its saves: `at_step` makes a checkpoint of one, so that Tables 3 and 4 come from a single run an arm.

    WORK/<arm>/extended    after `ropewalk extend`
    WORK/<arm>/tuned       after `ropewalk tune`, with its saves
    WORK/<arm>/at-000060   the checkpoint after 60 of its steps
    WORK/<arm>/eval/...    what `ropewalk evaluate` found
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import ropewalk
from ropewalk.checkpoint.folder import (
    Checkpoint,
    copy_companions,
    link_or_copy,
    open_checkpoint,
    write_config,
)
from ropewalk.checkpoint.output import folder_status, whole_folder
from ropewalk.checkpoint.subject import subject_of
from ropewalk.checkpoint.trained_on import write_trained_on
from ropewalk.errors import DataError
from ropewalk.evals.passkey import fits
from ropewalk.model.load import load_codec
from ropewalk.progress import Progress, silent
from ropewalk.record import Run, read_run
from ropewalk.train.state import saves

LABELS = {"none": "direct", "pi": "PI"}


@dataclass(frozen=True)
class Arm:
    """One way to a longer window. `tag` tells apart arms of one method and target that differ in their tuning."""

    method: str
    target: int
    options: dict[str, Any] = field(default_factory=dict, hash=False)
    tag: str = ""
    rate: float | None = None
    base: Path | None = None  # None: the study's model

    @property
    def name(self) -> str:
        return f"{self.method}-{self.target}{self.tag and f'-{self.tag}'}"


@dataclass(frozen=True, kw_only=True)
class Study:
    """A model, texts, targets in tokens, and how long each arm is tuned. `every` steps an arm is looked at."""

    model: str
    data: tuple[str, ...]
    tune_on: tuple[str, ...]
    targets: tuple[int, ...]
    work: Path
    steps: int
    every: int
    rate: float | None
    batch_tokens: int | None
    documents: int
    truncate: int
    seed: int = 0
    progress: Progress = silent

    @cached_property
    def base(self) -> Checkpoint:
        return open_checkpoint(self.model)

    @property
    def window(self) -> int:
        return self.base.window.target

    @property
    def looks(self) -> list[int]:
        """The steps at which an arm is measured, 0 first."""
        return [*range(0, self.steps, self.every), self.steps]

    def stretch(self, target: int) -> float:
        return target / self.window

    def lengths(self, target: int) -> list[int]:
        """The original window, doubled up to the target, and the target."""
        lengths = [self.window]
        while lengths[-1] * 2 < target:
            lengths.append(lengths[-1] * 2)
        return [*lengths, target] if target > self.window else lengths

    def extended(self, arm: Arm) -> Path:
        out = self.work / arm.name / "extended"
        if folder_status(out) != "done":
            ropewalk.extend(
                arm.base or self.model, to=arm.target, out=out, method=arm.method, options=arm.options or None,
                progress=self.progress,
            )  # fmt: skip
        return out

    def tuned(self, arm: Arm, steps: int | None = None) -> Path:
        """The folder of the arm's tuning, after all of its steps; every look at it is among its saves."""
        out, steps = self.work / arm.name / "tuned", steps or self.steps
        batch = None if self.batch_tokens is None else max(1, self.batch_tokens // arm.target) * arm.target
        if not _is_done(out):
            self.progress.note(f"tuning {arm.name}, {steps} steps")
        ropewalk.tune(
            self.extended(arm), out=out, data=list(self.tune_on), steps=steps, batch_tokens=batch,
            learning_rate=arm.rate or self.rate, save_every=self.every, keep_saves=steps // self.every + 1,
            allow_short_documents=True, seed=self.seed, resume=True, progress=self.progress,
        )  # fmt: skip
        return out

    def at_step(self, arm: Arm, step: int, steps: int | None = None) -> Path:
        """The checkpoint after so many of the arm's steps; 0 is the extended one."""
        if step == 0:
            return self.extended(arm)
        tuned = self.tuned(arm, steps)
        if step == (steps or self.steps):
            return tuned
        out = self.work / arm.name / f"at-{step:06d}"
        if not _is_done(out):
            write_step(tuned, step, out)
        return out

    def measured(
        self, arm: Arm | None, step: int = 0, *, steps: int | None = None, passkey: bool = True,
        lengths: Sequence[int] | None = None, name: str = "texts", **more: Any,
    ) -> Run:  # fmt: skip
        """What `ropewalk evaluate` finds of the arm after `step` steps, or of the base (None), on the study's texts."""
        model = self.model if arm is None else self.at_step(arm, step, steps)
        target = max(self.targets) if arm is None else arm.target
        lengths = list(lengths or self.lengths(target))
        tasks = ["perplexity", "passkey"] if passkey and self.has_passkey(max(lengths)) else ["perplexity"]
        out = self.evaluation(arm, step, name)
        if not _is_done(out):
            self.progress.note(f"evaluating {'the base' if arm is None else arm.name}, step {step}, {name}")
        given = {
            "data": list(self.data), "document_count": self.documents, "truncate_tokens": self.truncate, "tasks": tasks,
        }  # fmt: skip
        return ropewalk.evaluate(
            model, out=out, lengths=lengths, seed=self.seed, resume=True, progress=self.progress, **(given | more)
        )

    def evaluation(self, arm: Arm | None, step: int = 0, name: str = "texts") -> Path:
        """The folder of an evaluation."""
        return self.work / ("base" if arm is None else arm.name) / "eval" / f"{name}-{step:06d}"

    @cached_property
    def codec(self) -> Any:
        return load_codec(self.base)

    def has_passkey(self, target: int) -> bool:
        return fits(self.codec, target)


def _is_done(out: Path) -> bool:
    return folder_status(out) == "done"


def write_step(tuned: Path, step: int, out: Path) -> None:
    """The checkpoint that a tuning run was after `step` of its steps, from its saves, as the new folder `out`.

    Raises DataError when the run has no save of that step.
    """
    found = {saved.step: saved.folder for saved in saves(tuned)}
    if step not in found:
        raise DataError(
            f"{tuned} has no save of step {step}; it has {', '.join(map(str, found)) or 'none'}.\n"
            "  A table by step is made of the saves of one run.\n"
            "  Tune it anew in another --work, or give an --every that these steps are multiples of."
        )
    run, checkpoint = read_run(tuned), open_checkpoint(tuned)
    subject = subject_of(checkpoint) | {"tuning_steps": step, "tuning_tokens": step * run.resolved["batch_tokens"]}
    record = Run(
        command="tune", given=run.given | {"steps": step}, resolved=run.resolved | {"subject": subject, "steps": step},
        ropes=run.ropes, seed=run.seed, device=run.device, inputs=run.inputs,
    )  # fmt: skip
    weights = found[step] / "model.safetensors"
    with whole_folder(out) as folder:
        write_config(folder / "config.json", checkpoint.config)
        link_or_copy(weights, folder / weights.name, weights.stat().st_size)
        copy_companions(checkpoint, folder, checkpoint.window.target)
        write_trained_on(folder, (), tuned)
        record.finish(folder)
