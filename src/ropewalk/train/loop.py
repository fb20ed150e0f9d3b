"""The training loop: one optimizer step after another, saved, logged, and interruptible."""

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ropewalk.atomic import write_text
from ropewalk.errors import CheckpointError, DataError
from ropewalk.model.budget import free_bytes
from ropewalk.model.engine import Engine, Lean, Stock, lean_engine
from ropewalk.model.head import BodyAndHead
from ropewalk.planning.shapes import Shape, shape_of
from ropewalk.progress import Progress
from ropewalk.train.batches import batches, counted
from ropewalk.train.meter import Meter, known_shape, shown
from ropewalk.train.recipe import SMALL, Recipe
from ropewalk.train.recompute import SPARE, checkpointed, chosen_keeps
from ropewalk.train.rows import Rows
from ropewalk.train.soundness import is_sound, require_finite_weights, unsound
from ropewalk.train.state import SavedState, load_state, save_state, saves
from ropewalk.train.trackers import Tracker, no_tracker

LOG = "log.jsonl"
MICRO_TOKENS = 8_192  # tokens of one forward and backward pass, unless a sequence is longer


@dataclass(frozen=True, kw_only=True)
class Saving:
    """When saves are made, and how many stay. Where none is to stay, one does until the run is done."""

    every: int
    keep: int


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM, after a save."""


class Trainer:
    """One model, one recipe, one folder. `step` counts the optimizer steps that are done.

    `memory` is what a step may take beside weights, gradients and moments, in bytes; None: most of what is free. It
    decides what layers keep for their backward pass (`keeps`); a run that goes on keeps what it kept, to the last bit.
    """

    def __init__(
        self,
        model: Any,
        recipe: Recipe,
        rows: Rows,
        folder: Path,
        compute: torch.dtype,
        *,
        adapter: str = "full",
        memory: int | None = None,
        keeps: list[str] | None = None,
    ):
        self.model = model.train()
        self.recipe, self.rows, self.folder, self.compute = recipe, rows, folder, compute
        self.adapter = adapter
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.device = self.parameters[0].device
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=recipe.learning_rate, betas=recipe.betas, weight_decay=recipe.weight_decay, fused=True
        )
        self.step = 0
        self.logged = 0  # the last step in the log of an earlier start, which may lie beyond its save
        self.losses: list[float] = []
        self.targets: list[int] = []
        self.fits = True
        self._fingerprint = rows.digest()
        newest = self._newest_save()
        if keeps is None and newest is not None:
            keeps = newest.state.get("keeps")
        self.keeps = keeps or self._chosen_keeps(memory)
        self.engine = self._engine()

    def _newest_save(self) -> SavedState | None:
        found = saves(self.folder)
        return found[-1] if found else None

    def _chosen_keeps(self, memory: int | None) -> list[str]:
        """What each layer keeps, from the memory that is free beside the gradients and moments to come."""
        shape = self._shape()
        if shape is None:  # a family whose needs are not known: the small keep everything
            return ["everything" if sum(p.numel() for p in self.model.parameters()) < SMALL else "attention"]
        if memory is None:
            state = sum(3 * p.numel() * p.element_size() for p in self.parameters)
            memory = int(free_bytes(self.device) * (1 - SPARE)) - state
        dtype = str(self.compute).removeprefix("torch.")
        at_once = max(1, MICRO_TOKENS // self.recipe.length) * self.recipe.length
        tokens = min(at_once, self.recipe.batch_tokens)
        keeps, self.fits = chosen_keeps(shape, tokens, memory, dtype, self.adapter, on_gpu=self.device.type == "cuda")
        return keeps

    def _shape(self) -> Shape | None:
        try:
            return shape_of(self.model.config.to_dict(), sum(p.numel() for p in self.model.parameters()))
        except CheckpointError:
            return None

    def _engine(self) -> Engine:
        parts = BodyAndHead(self.model)
        lean = lean_engine(self.model, parts, self.compute)
        if lean is None:
            return Stock(self.model, parts, self.compute, checkpointed=checkpointed(self.keeps))
        lean.keeps = self.keeps
        return Lean(lean, self.compute)

    def resume(self) -> None:
        """Goes back to the newest whole save, if there is one; the log is cut to match."""
        newest = self._newest_save()
        if newest is None:
            _, self.logged = _cut_log(self.folder / LOG, 0)
            return
        if newest.state.get("rows") != self._fingerprint:
            raise DataError(
                f"the texts are not those that {self.folder} was begun with.\n"
                "  Resuming on other texts would be another run.\n"
                "  Give the same --data, or another --out."
            )
        load_state(newest, self.model, self.optimizer)
        self.step = newest.step
        entries, self.logged = _cut_log(self.folder / LOG, self.step)
        self.losses = [entry["loss"] for entry in entries]
        self.targets = [entry.get("targets", 0) for entry in entries]

    def save(self, keep: int) -> Path:
        """Raises DataError for weights that are no numbers, and keeps the save before."""
        require_finite_weights(self.model, self.step, self._last_folder())
        state = {"rows": self._fingerprint, "keeps": self.keeps}
        return save_state(self.folder, self.step, self.model, self.optimizer, state, max(1, keep))

    def run(self, saving: Saving, progress: Progress, tracker: Tracker = no_tracker) -> None:
        """All steps that are left. Raises Interrupted after a save; DataError when the loss is not finite."""
        if self.step < self.recipe.steps:
            self._take_steps(saving, progress, tracker)
        elif saving.keep:
            self.save(saving.keep)  # it is there; a kill may have left older ones beside it

    def _take_steps(self, saving: Saving, progress: Progress, tracker: Tracker) -> None:
        shape = known_shape(self.model.config.to_dict())
        meter = Meter(shape, self.recipe, self.adapter, self.device, self.compute, self.step)
        with (
            _noticing_interrupts() as interrupted,
            (self.folder / LOG).open("a", encoding="utf-8") as log,
            progress.bar("tuning", self.recipe.steps, self.step) as bar,
        ):
            while self.step < self.recipe.steps:
                entry = self._one_step()
                entry |= meter.figures(entry["seconds"])
                log.write(json.dumps(entry) + "\n")
                log.flush()
                tracker.log(entry)
                bar.advance(1, **shown(entry))
                if said := meter.estimate():
                    progress.note(said)
                if interrupted.is_set() or self._is_due(saving):
                    os.fsync(log.fileno())  # a save's steps are in the log, even after a power cut
                    self.save(saving.keep)
                if interrupted.is_set():
                    raise Interrupted(f"stopped after step {self.step} of {self.recipe.steps}, saved in {self.folder}")
            require_finite_weights(self.model, self.step, self._last_folder())  # a run may end without a save

    def _is_due(self, saving: Saving) -> bool:
        last = self.step == self.recipe.steps
        return saving.keep > 0 if last else self.step % saving.every == 0

    def _one_step(self) -> dict[str, float]:
        recipe, began = self.recipe, time.perf_counter()
        rate = recipe.rate(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        loss, targets = self._accumulate()
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, recipe.clip_norm).item()
        self._require_sound(loss, norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=False)  # their memory is needed again at once
        self.step += 1
        self.losses.append(loss)
        self.targets.append(targets)
        seconds = time.perf_counter() - began
        return {
            "step": self.step,
            "loss": loss,
            "learning_rate": rate,
            "gradient_norm": norm,
            "targets": targets,
            "tokens": self.step * recipe.batch_tokens,
            "seconds": seconds,
            "tokens_per_second": recipe.batch_tokens / seconds,
        }

    def _accumulate(self) -> tuple[float, int]:
        """Gradients of one global batch, the weighted mean of the loss over its targets, and how many there were."""
        first = self.step * self.recipe.sequences
        rows = [self.rows.row(number) for number in range(first, first + self.recipe.sequences)]
        total = sum(self.engine.accumulate(batch) for batch in batches(rows, MICRO_TOKENS, self.device))
        return total, counted(rows)[1]

    def _require_sound(self, loss: float, norm: float) -> None:
        """Raises DataError when the loss, or the gradient's norm, is no number, or the loss has run away."""
        if not is_sound(self.losses, loss, norm):
            first = self.step * self.recipe.sequences
            rows = [self.rows.row(number) for number in range(first, first + self.recipe.sequences)]
            raise unsound(self.model, rows, first, self.step + 1, loss, norm, self.compute, self._last_folder())

    def _last_folder(self) -> Path | None:
        newest = self._newest_save()
        return newest.folder if newest else None


def _cut_log(path: Path, steps: int) -> tuple[list[dict[str, Any]], int]:
    """The log's entries up to `steps`, and the last step it had; later entries, and a torn line, leave the file."""
    if not path.exists():
        return [], 0
    entries: list[dict[str, Any]] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(ValueError):
            entries.append(json.loads(line))
    kept = [entry for entry in entries if entry["step"] <= steps]
    write_text(path, "".join(json.dumps(entry) + "\n" for entry in kept))
    return kept, max((entry["step"] for entry in entries), default=0)


@contextlib.contextmanager
def _noticing_interrupts() -> Iterator[threading.Event]:
    """Sets the event at the first Ctrl-C or SIGTERM, so that the step in hand ends and is saved; a second one stops."""
    noticed = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield noticed
        return

    def notice(number: int, frame: Any) -> None:
        if noticed.is_set():
            raise KeyboardInterrupt
        noticed.set()

    before = {number: signal.signal(number, notice) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield noticed
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
