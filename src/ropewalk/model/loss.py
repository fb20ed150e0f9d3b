"""Cross-entropy that never holds the logits of a whole sequence."""

from typing import Any

import torch
from torch import Tensor

# T tokens, D hidden, V vocabulary
CHUNK_NUMBERS = {"cpu": 2**23, "cuda": 2**26}  # float32 logits held at once: 32 MiB, and 256 MiB


class ChunkedCrossEntropy(torch.autograd.Function):
    """Sum over tokens of -share x log p(target), logits = hidden @ weight^T; gradients are made in the forward pass.

    With the loss at hand its gradient is one product away, so each chunk's logits are used twice and dropped: memory
    is O(chunk x V) instead of O(T x V), and no logit is computed a second time. Sums are float32.
    """

    @staticmethod
    def forward(ctx, hidden_TD: Tensor, weight_VD: Tensor, targets_T: Tensor, shares_T: Tensor) -> Tensor:
        rows = max(1, CHUNK_NUMBERS.get(hidden_TD.device.type, 2**26) // weight_VD.shape[0])
        wants_hidden, wants_weight = ctx.needs_input_grad[:2]
        hidden_grad = torch.empty_like(hidden_TD) if wants_hidden else None
        weight_grad = torch.zeros_like(weight_VD, dtype=torch.float32) if wants_weight else None
        total = hidden_TD.new_zeros((), dtype=torch.float32)
        for start in range(0, len(hidden_TD), rows):
            chunk_TD, target_T1 = hidden_TD[start : start + rows], targets_T[start : start + rows, None]
            logits_TV = (chunk_TD @ weight_VD.t()).float()
            share_T = shares_T[start : start + rows]
            total += ((logits_TV.logsumexp(-1) - logits_TV.gather(1, target_T1)[:, 0]) * share_T).sum()
            if not (wants_hidden or wants_weight):
                continue
            grad_TV = logits_TV.softmax(-1)
            grad_TV.scatter_add_(1, target_T1, grad_TV.new_full(target_T1.shape, -1.0))
            grad_TV = grad_TV.mul_(share_T[:, None]).to(hidden_TD.dtype)
            if hidden_grad is not None:
                torch.mm(grad_TV, weight_VD, out=hidden_grad[start : start + rows])
            if weight_grad is not None:
                weight_grad += grad_TV.t() @ chunk_TD
        ctx.save_for_backward(hidden_grad, None if weight_grad is None else weight_grad.to(weight_VD.dtype))
        return total

    @staticmethod
    def backward(ctx, *output_grads: Tensor):
        hidden_grad, weight_grad = ctx.saved_tensors
        scale = output_grads[0]
        return (
            None if hidden_grad is None else hidden_grad * scale.to(hidden_grad.dtype),
            None if weight_grad is None else weight_grad * scale.to(weight_grad.dtype),
            None,
            None,
        )


def summed_cross_entropy(hidden_TD: Tensor, weight_VD: Tensor, targets_T: Tensor, shares_T: Tensor) -> Tensor:
    """Scalar float32: each token's loss times its share, summed. Shares of a whole batch add up to 1 for a mean."""
    return ChunkedCrossEntropy.apply(hidden_TD, weight_VD, targets_T, shares_T)  # type: ignore[return-value]


@torch.no_grad()
def loss_and_gradient(hidden_TD: Tensor, norm: Any, head: Any, targets_T: Tensor, shares_T: Tensor) -> float:
    """Sum over tokens of loss times share. `hidden_TD`, before the final norm, becomes its gradient, in place.

    The gradients of norm and head are added to theirs. Tokens whose share is 0 (a masked prompt) make no logits.
    """
    counted = shares_T.nonzero()[:, 0]
    if len(counted) == len(shares_T):
        return _each_chunk(hidden_TD, norm, head, targets_T, shares_T)
    chosen_TD = hidden_TD[counted]
    total = _each_chunk(chosen_TD, norm, head, targets_T[counted], shares_T[counted])
    hidden_TD.zero_()
    hidden_TD[counted] = chosen_TD
    return total


def _each_chunk(hidden_TD: Tensor, norm: Any, head: Any, targets_T: Tensor, shares_T: Tensor) -> float:
    plain = type(head) is torch.nn.Linear and head.bias is None
    total = hidden_TD.new_zeros((), dtype=torch.promote_types(hidden_TD.dtype, torch.float32))
    rows = max(1, min(len(hidden_TD), CHUNK_NUMBERS.get(hidden_TD.device.type, 2**26) // head.weight.shape[0]))
    fused = FusedHead(head.weight, rows, hidden_TD) if plain else None
    for start in range(0, len(hidden_TD), rows):
        cut = slice(start, start + rows)
        with torch.enable_grad():
            inputs = hidden_TD[cut].detach().requires_grad_()
            normed = norm(inputs)
        if fused is not None:
            total += fused.add(normed.detach(), targets_T[cut, None], shares_T[cut, None])
            torch.autograd.backward(normed, fused.gradient(normed))
        else:
            total += _traced_chunk(normed, head, targets_T[cut], shares_T[cut])
        assert inputs.grad is not None
        hidden_TD[cut] = inputs.grad
    return total.item()


class FusedHead:
    """Loss and gradients of one chunk after another through a plain head: the loss is at hand, so its gradient is one
    product away, and is written over the logits.

    The logits' memory is made once: on the CPU, fresh pages cost more than the product that fills them.
    """

    def __init__(self, weight_VD: Tensor, rows: int, like: Tensor):
        half = torch.is_autocast_enabled(like.device.type)
        self.weight = weight_VD
        self.compute = torch.get_autocast_dtype(like.device.type) if half else weight_VD.dtype
        self.weight_VD = weight_VD.detach().to(self.compute)
        self._logits = torch.empty(rows, len(weight_VD), dtype=self.compute, device=like.device)
        if weight_VD.requires_grad and weight_VD.grad is None:
            weight_VD.grad = torch.zeros_like(weight_VD)
        self._grad_TV = self._logits

    def add(self, normed_TD: Tensor, target_T1: Tensor, share_T1: Tensor) -> Tensor:
        """The chunk's loss, and its part of the gradient of the weight."""
        normed_TD = normed_TD.to(self.compute)
        logits_TV = torch.mm(normed_TD, self.weight_VD.t(), out=self._logits[: len(normed_TD)])
        probability_TV = logits_TV if logits_TV.dtype in (torch.float32, torch.float64) else logits_TV.float()
        asked_T1 = probability_TV.gather(1, target_T1)
        top_T1 = probability_TV.amax(1, keepdim=True)
        sum_T1 = probability_TV.sub_(top_T1).exp_().sum(1, keepdim=True)
        loss = ((top_T1 + sum_T1.log() - asked_T1) * share_T1).sum()
        probability_TV.mul_(share_T1 / sum_T1).scatter_add_(1, target_T1, -share_T1.to(probability_TV.dtype))
        self._grad_TV = probability_TV.to(self.compute)
        if self.weight.grad is not None and self.weight.requires_grad:
            if self.weight.grad.dtype == self.compute:
                self.weight.grad.addmm_(self._grad_TV.t(), normed_TD)
            else:
                self.weight.grad += self._grad_TV.t() @ normed_TD
        return loss

    def gradient(self, normed_TD: Tensor) -> Tensor:
        """The gradient of the chunk that was added last."""
        return (self._grad_TV @ self.weight_VD).to(normed_TD.dtype)


def _traced_chunk(normed_TD: Tensor, head: Any, targets_T: Tensor, shares_T: Tensor) -> Tensor:
    """Heads with a bias or an adapter, by autograd."""
    with torch.enable_grad():
        losses_T = torch.nn.functional.cross_entropy(head(normed_TD).float(), targets_T, reduction="none")
        loss = (losses_T * shares_T).sum()
    loss.backward()
    return loss.detach()
