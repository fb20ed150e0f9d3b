"""Which engine makes the gradients of a batch: the lean one where the family is known to it, else the stock forward."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ropewalk.model.attention import Kernel, OverDocuments
from ropewalk.model.head import BodyAndHead
from ropewalk.model.lean import LeanEngine
from ropewalk.model.loss import summed_cross_entropy
from ropewalk.model.ulysses import SharedRows, Ulysses
from ropewalk.model.view import layer_view

# B rows, S tokens
PROBE = 24  # tokens


@dataclass(frozen=True)
class Batch:
    """Rows that go through the model together; all tensors (B, S).

    `targets` are the tokens asked for after each of `inputs`, `shares` what each counts in the sum. `positions` is None
    for 0 .. S - 1. `starts` holds for each row where its documents begin; None: a row is one document.
    """

    inputs: Tensor
    targets: Tensor
    shares: Tensor
    positions: Tensor | None = None
    starts: Sequence[Sequence[int]] | None = None

    def explicit_positions(self) -> Tensor:
        if self.positions is not None:
            return self.positions
        return torch.arange(self.inputs.shape[1], device=self.inputs.device).expand(self.inputs.shape)


class Engine(Protocol):
    """Makes the gradients of a batch."""

    def accumulate(self, batch: Batch) -> float:
        """The sum of loss times share; its gradients are added to `.grad`."""
        ...

    def described(self) -> str:
        """What it is and keeps, for people."""
        ...


class Lean:
    """LeanEngine under autocast, where the model computes in less than its weights hold.

    With `shared` this rank's part of each row goes through it, and attention over the rows of all.
    """

    def __init__(self, engine: LeanEngine, compute: torch.dtype, shared: SharedRows | None = None):
        self.engine, self.compute, self.shared = engine, compute, shared

    def accumulate(self, batch: Batch) -> float:
        kernel = self.engine.kernel if batch.starts is None else OverDocuments(self.engine.kernel, batch.starts)
        with autocast(self.engine.device, self.compute):
            if self.shared is not None:
                return self._accumulate_shared(batch, kernel, self.shared)
            return self.engine.accumulate(batch.inputs, batch.targets, batch.shares, batch.explicit_positions(), kernel)

    def _accumulate_shared(self, batch: Batch, kernel: Kernel, shared: SharedRows) -> float:
        own = [shared.stretch(values) for values in (batch.inputs, batch.targets, batch.shares)]
        positions = shared.positions(batch.explicit_positions())
        return self.engine.accumulate(own[0], own[1], own[2], positions, Ulysses(kernel, shared.group))

    def described(self) -> str:
        counts = {keep: self.engine.keeps.count(keep) for keep in dict.fromkeys(self.engine.keeps)}
        layers = ", ".join(f"{count} layers keep {_KEPT[keep]}" for keep, count in counts.items())
        over = "" if self.shared is None else f" over {self.shared.ranks} ranks"
        return f"lean engine, {self.engine.kernel.name}{over}; {layers}"


_KEPT = {
    "everything": "all they compute",
    "attention": "their input and attention's output, the rest is computed twice",
    "input": "their input, the rest is computed twice",
    "host": "their input and attention's output in the host's memory, the rest is computed twice",
}


class Stock:
    """The stock forward pass and autograd, with the loss in chunks; `checkpointed` layers are computed twice."""

    def __init__(self, model: PreTrainedModel, parts: BodyAndHead, compute: torch.dtype, *, checkpointed: bool):
        self.model, self.parts, self.compute, self.checkpointed = model, parts, compute, checkpointed
        self.device = next(model.parameters()).device
        if checkpointed:
            # the name since transformers 5.2; the old one still works there, and warns
            enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
            enable({"use_reentrant": False})

    def accumulate(self, batch: Batch) -> float:
        with autocast(self.device, self.compute, copies=False):
            loss = self._loss(batch)
        loss.backward()
        return loss.item()

    def _loss(self, batch: Batch) -> Tensor:
        targets_T, shares_T = batch.targets.flatten(), batch.shares.flatten()
        head, told = self.parts.head, self._told(batch)
        if self.parts.is_plain and head is not None:
            hidden = self.parts.hidden(batch.inputs, **told)
            return summed_cross_entropy(hidden.flatten(0, 1), head.weight.to(hidden.dtype), targets_T, shares_T)
        logits = self.model(batch.inputs, use_cache=False, **told).logits.float()
        losses_T = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets_T, reduction="none")
        return (losses_T * shares_T).sum()

    def _told(self, batch: Batch) -> dict[str, Tensor]:
        """Positions and mask, where they are not the plain ones.

        Skipped positions look like packed texts to transformers, which then hides all but a token's own run; a mask of
        ones says that they are not.
        """
        told: dict[str, Tensor] = {}
        if batch.positions is not None:
            told["position_ids"] = batch.positions
            told["attention_mask"] = torch.ones_like(batch.inputs)
        if batch.starts is not None:
            told["position_ids"] = batch.explicit_positions()
            told["attention_mask"] = document_mask(batch.inputs, batch.starts, next(self.model.parameters()).dtype)
        return told

    def described(self) -> str:
        how = "layers are computed twice" if self.checkpointed else "layers keep all they compute"
        return f"stock forward pass ({self.model.config.model_type} has no lean engine); {how}; loss in chunks"


def document_mask(inputs: Tensor, starts: Sequence[Sequence[int]], dtype: torch.dtype) -> Tensor:
    """(B, 1, S, S), 0 where a token may look and the least number elsewhere."""
    tokens = torch.arange(inputs.shape[1], device=inputs.device)
    document = torch.stack([torch.isin(tokens, tokens.new_tensor(list(row))).cumsum(0) for row in starts])
    allowed = (document[:, :, None] == document[:, None, :]) & (tokens[:, None] >= tokens)
    return torch.zeros(allowed.shape, dtype=dtype, device=inputs.device).masked_fill(~allowed, torch.finfo(dtype).min)[
        :, None
    ]


def autocast(
    device: torch.device, compute: torch.dtype, *, copies: bool = True
) -> contextlib.AbstractContextManager[Any]:
    """Products in `compute`, where that has 16 bits. With `copies` those of trained weights stay until the context ends,
    for weights that are read tile by tile; a stock forward pass reads each once, and holds them for nothing."""
    enabled = compute in (torch.bfloat16, torch.float16)
    return torch.autocast(device.type, dtype=compute, enabled=enabled, cache_enabled=copies)


def lean_engine(model: PreTrainedModel, parts: BodyAndHead, compute: torch.dtype) -> LeanEngine | None:
    """The lean engine, every layer keeping everything; None where the family is not known or differs from its name."""
    view = layer_view(model) if parts.is_plain else None
    if view is None:
        return None
    with autocast(next(model.parameters()).device, compute):
        engine = LeanEngine(model, view, ["everything"] * len(view.body.layers), compute)
        return engine if _equals_stock(engine, parts) else None


@torch.no_grad()
def _equals_stock(engine: LeanEngine, parts: BodyAndHead) -> bool:
    assert parts.head is not None
    tokens_BS = torch.arange(2 * PROBE, device=engine.device).view(2, PROBE) * 7 % parts.head.weight.shape[0]
    training = parts.model.training
    parts.model.eval()  # dropout would differ
    try:
        ours = engine.hidden(tokens_BS).float()
        theirs = parts.hidden(tokens_BS).float()
    except (RuntimeError, AttributeError):  # layers that are not what the family's name promises
        return False
    finally:
        parts.model.train(training)
    exact = ours.dtype == next(parts.model.parameters()).dtype and not torch.is_autocast_enabled(engine.device.type)
    return bool((ours - theirs).norm() <= (1e-4 if exact else 3e-2) * theirs.norm())
