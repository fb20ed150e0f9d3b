"""Cross-entropy that never holds the logits of a whole sequence."""

import torch
from torch import Tensor

# T tokens, D hidden, V vocabulary
CHUNK_NUMBERS = 2**24  # float32 logits held at once: 64 MiB


class ChunkedCrossEntropy(torch.autograd.Function):
    """Sum over tokens of -share x log p(target), logits = hidden @ weight^T; gradients are made in the forward pass.

    With the loss at hand its gradient is one product away, so each chunk's logits are used twice and dropped: memory
    is O(chunk x V) instead of O(T x V), and no logit is computed a second time. Sums are float32.
    """

    @staticmethod
    def forward(ctx, hidden_TD: Tensor, weight_VD: Tensor, targets_T: Tensor, shares_T: Tensor) -> Tensor:
        rows = max(1, CHUNK_NUMBERS // weight_VD.shape[0])
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
