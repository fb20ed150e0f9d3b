"""The training loop: one optimizer step after another, saved, logged, and interruptible."""

import contextlib
import json
import math
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ropewalk.errors import DataError
from ropewalk.model.head import BodyAndHead
from ropewalk.model.loss import summed_cross_entropy
from ropewalk.progress import Progress
from ropewalk.train.recipe import Recipe
from ropewalk.train.rows import TokenRows
from ropewalk.train.state import load_state, save_state, saves

LOG = "log.jsonl"
MICRO_TOKENS = 8_192  # tokens of one forward and backward pass, unless a sequence is longer


@dataclass(frozen=True, kw_only=True)
class Saving:
    """When saves are made, and how many stay."""

    every: int
    keep: int


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM, after a save."""


class Trainer:
    """One model, one recipe, one folder. `step` counts the optimizer steps that are done."""

    def __init__(self, model: Any, recipe: Recipe, rows: TokenRows, folder: Path, compute: torch.dtype):
        self.model = model.train()
        self.recipe, self.rows, self.folder, self.compute = recipe, rows, folder, compute
        self.parts = BodyAndHead(model)
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.device = self.parameters[0].device
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=recipe.learning_rate, betas=recipe.betas, weight_decay=recipe.weight_decay, fused=True
        )
        self.step = 0
        self.losses: list[float] = []
        self._fingerprint = rows.digest()

    def resume(self) -> None:
        """Goes back to the newest whole save, if there is one; the log is cut to match."""
        found = saves(self.folder)
        if not found:
            _cut_log(self.folder / LOG, 0)
            return
        newest = found[-1]
        if newest.state.get("rows") != self._fingerprint:
            raise DataError(
                f"the texts are not those that {self.folder} was begun with.\n"
                "  Resuming on other texts would be another run.\n"
                "  Give the same --data, or another --out."
            )
        load_state(newest, self.model, self.optimizer)
        self.step = newest.step
        self.losses = [entry["loss"] for entry in _cut_log(self.folder / LOG, self.step)]

    def save(self, keep: int) -> Path:
        return save_state(self.folder, self.step, self.model, self.optimizer, {"rows": self._fingerprint}, keep)

    def run(self, saving: Saving, progress: Progress) -> None:
        """All steps that are left. Raises Interrupted after a save; DataError when the loss is not finite."""
        with (
            _noticing_interrupts() as interrupted,
            (self.folder / LOG).open("a", encoding="utf-8") as log,
            progress.bar("tuning", self.recipe.steps, self.step) as bar,
        ):
            while self.step < self.recipe.steps:
                entry = self._one_step()
                log.write(json.dumps(entry) + "\n")
                log.flush()
                figures = {key: f"{entry[key]:.3g}" for key in ("loss", "tokens_per_second")}
                bar.advance(1, **figures)
                if self.step % saving.every == 0 and self.step < self.recipe.steps:
                    self.save(saving.keep)
                if interrupted.is_set():
                    self.save(saving.keep)
                    raise Interrupted(f"stopped after step {self.step} of {self.recipe.steps}, saved in {self.folder}")
        if saving.keep:
            self.save(saving.keep)

    def _one_step(self) -> dict[str, float]:
        recipe, began = self.recipe, time.perf_counter()
        rate = recipe.rate(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        loss = self._accumulate()
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, recipe.clip_norm).item()
        if not (math.isfinite(loss) and math.isfinite(norm)):
            last = saves(self.folder)
            raise DataError(
                f"the loss is {loss} with a gradient norm of {norm} at step {self.step + 1}: tuning cannot go on.\n"
                f"  The last good save is {last[-1].folder if last else 'none'}.\n"
                "  Try a lower --learning-rate, in another --out."
            )
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.losses.append(loss)
        seconds = time.perf_counter() - began
        return {
            "step": self.step,
            "loss": loss,
            "learning_rate": rate,
            "gradient_norm": norm,
            "tokens": self.step * recipe.batch_tokens,
            "seconds": seconds,
            "tokens_per_second": recipe.batch_tokens / seconds,
        }

    def _accumulate(self) -> float:
        """Gradients of one global batch; the weighted mean of the loss over its targets, however it is cut up."""
        recipe = self.recipe
        first = self.step * recipe.sequences
        rows = [self.rows.row(number) for number in range(first, first + recipe.sequences)]
        tokens_BL = torch.from_numpy(np.stack([row.tokens for row in rows]))
        weights_BL = torch.from_numpy(np.stack([row.weights for row in rows]))[:, 1:]
        shares_BL = weights_BL / weights_BL.sum()
        at_once = max(1, MICRO_TOKENS // recipe.length)
        total = 0.0
        for tokens, shares in zip(tokens_BL.split(at_once), shares_BL.split(at_once), strict=True):
            loss = self._summed_loss(tokens.to(self.device), shares.to(self.device))
            loss.backward()
            total += loss.item()
        return total

    def _summed_loss(self, tokens_BL: torch.Tensor, shares_BL: torch.Tensor) -> torch.Tensor:
        """Loss times share, summed over the targets of these rows; each row is one sequence."""
        enabled = self.compute in (torch.bfloat16, torch.float16)
        targets_T, shares_T = tokens_BL[:, 1:].flatten(), shares_BL.flatten()
        with torch.autocast(self.device.type, dtype=self.compute, enabled=enabled):
            head = self.parts.head
            if self.parts.is_plain and head is not None:
                hidden = self.parts.hidden(tokens_BL[:, :-1])
                return summed_cross_entropy(hidden.flatten(0, 1), head.weight.to(hidden.dtype), targets_T, shares_T)
            logits = self.model(tokens_BL[:, :-1], use_cache=False).logits.float()
            losses_T = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets_T, reduction="none")
            return (losses_T * shares_T).sum()


def _cut_log(path: Path, steps: int) -> list[dict[str, Any]]:
    """The log's entries up to `steps`; later ones, and a torn line, are removed from the file."""
    entries = []
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError):
                entry = json.loads(line)
                if entry["step"] <= steps:
                    entries.append(entry)
        path.write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")
    return entries


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
