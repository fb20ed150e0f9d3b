"""The training loop: one optimizer step after another, saved, logged, and interruptible."""

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ropewalk.errors import CheckpointError, DataError
from ropewalk.model.agreement import require_agreement
from ropewalk.model.engine import Engine, Lean, Stock, lean_engine
from ropewalk.model.head import BodyAndHead
from ropewalk.model.ranked import ranked_engine
from ropewalk.model.ranks import ALONE, Ranks, lost_rank
from ropewalk.model.sharding import Sharded, whole
from ropewalk.planning.shapes import Shape, shape_of
from ropewalk.progress import Progress
from ropewalk.train.batches import batches, counted, idle_batch
from ropewalk.train.interrupts import Interrupted, noticing_interrupts
from ropewalk.train.layout import free_for_each
from ropewalk.train.log import LOG, cut_log
from ropewalk.train.meter import Meter, known_shape, shown
from ropewalk.train.recipe import SMALL, Recipe
from ropewalk.train.recompute import SPARE, checkpointed, chosen_keeps, load_of
from ropewalk.train.rows import Rows
from ropewalk.train.sharded_state import load_sharded, save_sharded
from ropewalk.train.soundness import is_sound, require_finite_weights, unsound
from ropewalk.train.state import SavedState, load_state, require_readable, save_state, saves
from ropewalk.train.trackers import Tracker, no_tracker

MICRO_TOKENS = 8_192  # tokens of one forward and backward pass, unless a sequence is longer


@dataclass(frozen=True, kw_only=True)
class Saving:
    """When saves are made, and how many stay. Where none is to stay, one does until the run is done."""

    every: int
    keep: int


class Trainer:
    """One model, one recipe, one folder. `step` counts the optimizer steps that are done.

    `memory` is what a step may take beside weights, gradients and moments, in bytes; None: most of what is free. It
    decides what layers keep for their backward pass (`keeps`); a run that goes on keeps what it kept, to the last bit.
    With `ranks` and `weights` the model is divided over several processes, each of which has a trainer like this one.
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
        ranks: Ranks = ALONE,
        weights: Sharded | None = None,
    ):
        self.ranks, self.weights = ranks, weights
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
        require_readable(folder)
        newest = self._newest_save()
        require_agreement(ranks, folder, -1 if newest is None else newest.step, self._fingerprint)
        if keeps is None and newest is not None and newest.layout == (ranks.layout.data, ranks.layout.sequence):
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
            state = sum(3 * p.numel() * p.element_size() for p in self.parameters) // self.ranks.count
            memory = int(free_for_each(self.ranks, self.device) * (1 - SPARE)) - state
        dtype = str(self.compute).removeprefix("torch.")
        load = load_of(self.recipe, self.ranks.layout, MICRO_TOKENS, on_gpu=self.device.type == "cuda")
        keeps, self.fits = chosen_keeps(shape, load, memory, dtype, self.adapter)
        return keeps

    def _shape(self) -> Shape | None:
        try:
            return shape_of(self.model.config.to_dict(), sum(p.numel() for p in self.model.parameters()))
        except CheckpointError:
            return None

    def _engine(self) -> Engine:
        if self.weights is not None:
            return ranked_engine(self.model, self.weights, self.ranks, self.compute, self.keeps)
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
            self._take_log(0)
            return
        if newest.state.get("rows") != self._fingerprint:
            raise DataError(
                f"the texts are not those that {self.folder} was begun with.\n"
                "  Resuming on other texts would be another run.\n"
                "  Give the same --data, or another --out."
            )
        self.ranks.wait()  # all have found it, and none has cut the log yet
        load = load_state if self.weights is None and not newest.is_sharded else load_sharded
        load(newest, self.model, self.optimizer)
        self.step = newest.step
        self._take_log(self.step)

    def _take_log(self, steps: int) -> None:
        entries, self.logged = cut_log(self.folder / LOG, steps, write=self.ranks.is_first)
        self.losses = [entry["loss"] for entry in entries]
        self.targets = [entry.get("targets", 0) for entry in entries]

    def save(self, keep: int) -> Path:
        """Raises DataError for weights that are no numbers, and keeps the save before."""
        require_finite_weights(self.model, self.step, self._last_folder(), self.ranks)
        state = {"rows": self._fingerprint, "keeps": self.keeps}
        if self.weights is None:
            return save_state(self.folder, self.step, self.model, self.optimizer, state, max(1, keep))
        state |= {"layout": [self.ranks.layout.data, self.ranks.layout.sequence]}
        return save_sharded(self.folder, self.step, self.model, self.optimizer, state, max(1, keep), self.ranks)

    def run(self, saving: Saving, progress: Progress, tracker: Tracker = no_tracker) -> None:
        """All steps that are left. Raises Interrupted after a save; DataError when the loss is not finite."""
        if self.step < self.recipe.steps:
            with lost_rank(self._where):
                self._take_steps(saving, progress, tracker)
        elif saving.keep:
            self.save(saving.keep)  # it is there; a kill may have left older ones beside it

    def _where(self) -> str:
        newest = self._newest_save()
        saved = f"{newest.folder} holds step {newest.step}" if newest else "nothing is saved yet"
        return f"tuning stopped in step {self.step + 1} of {self.recipe.steps}, and {saved}"

    def _take_steps(self, saving: Saving, progress: Progress, tracker: Tracker) -> None:
        shape = known_shape(self.model.config.to_dict())
        meter = Meter(shape, self.recipe, self.adapter, self.device, self.compute, self.step, self.ranks.count)
        with (
            noticing_interrupts() as interrupted,
            open(self.folder / LOG if self.ranks.is_first else os.devnull, "a", encoding="utf-8") as log,
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
                stop = self.ranks.most(interrupted.is_set()) > 0  # a signal may reach one rank before the others
                if stop or self._is_due(saving):
                    if self.ranks.is_first:
                        os.fsync(log.fileno())  # a save's steps are in the log, even after a power cut
                    self.save(saving.keep)
                if stop:
                    raise Interrupted(f"stopped after step {self.step} of {self.recipe.steps}, saved in {self.folder}")
            require_finite_weights(
                self.model, self.step, self._last_folder(), self.ranks
            )  # a run may end without a save

    def _is_due(self, saving: Saving) -> bool:
        last = self.step == self.recipe.steps
        return saving.keep > 0 if last else self.step % saving.every == 0

    def _one_step(self) -> dict[str, float]:
        recipe, began = self.recipe, time.perf_counter()
        rate = recipe.rate(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        loss, targets = self._accumulate()
        norm = whole(torch.nn.utils.clip_grad_norm_(self.parameters, recipe.clip_norm)).item()
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
        ranks, first = self.ranks, self.step * self.recipe.sequences
        numbers = range(first, first + self.recipe.sequences)[ranks.data :: ranks.layout.data]
        rows = [self.rows.row(number) for number in numbers]
        counts = counted(rows) if ranks.sequence == 0 else (0.0, 0)  # a row counts once, however many ranks share it
        weight, targets = ranks.summed(counts)
        work = list(batches(rows, MICRO_TOKENS, self.device, weight))
        passes = int(ranks.most(len(work)))  # each is one for all: weights are gathered from every rank
        work += [idle_batch(self.device)] * (passes - len(work))
        loss = sum(self.engine.accumulate(batch) for batch in work)
        return ranks.summed([loss])[0], int(targets)

    def _require_sound(self, loss: float, norm: float) -> None:
        """Raises DataError when the loss, or the gradient's norm, is no number, or the loss has run away."""
        if not is_sound(self.losses, loss, norm):
            first = self.step * self.recipe.sequences
            rows = [self.rows.row(number) for number in range(first, first + self.recipe.sequences)]
            raise unsound(
                self.model, rows, first, self.step + 1, loss, norm, self.compute, self._last_folder(), self.ranks
            )

    def _last_folder(self) -> Path | None:
        newest = self._newest_save()
        return newest.folder if newest else None
