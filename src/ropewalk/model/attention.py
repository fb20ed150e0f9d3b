"""Causal attention for training whose backward pass is called by hand: the best fused kernel that is here.

A kernel gives its output and a small state (the log-sum-exp of each row); with both, and queries, keys and values made
again, its backward pass needs no second forward pass. torch offers that through the operators below its own
scaled_dot_product_attention, one family a device; `chosen_kernel` tries them on a small input and takes the first that
gives the gradients of the plain formula.

Shape letters: B batch, H heads of queries, K heads of keys (H a multiple of K), S tokens, D head dimension.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

PROBE = (2, 4, 2, 24, 64)  # B, H, K, S, D
State = tuple[Any, ...]


class Kernel(Protocol):
    """Causal attention of texts over themselves, (B, H, S, D) from queries, and keys and values of K heads."""

    name: str

    def forward(self, query: Tensor, keys: Tensor, values: Tensor, scale: float) -> tuple[Tensor, State]: ...

    def backward(
        self, grad: Tensor, query: Tensor, keys: Tensor, values: Tensor, out: Tensor, state: State, scale: float
    ) -> tuple[Tensor, Tensor, Tensor]: ...


class CpuFlash:
    name = "CPU flash"

    def forward(self, query: Tensor, keys: Tensor, values: Tensor, scale: float) -> tuple[Tensor, State]:
        out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            query, keys, values, 0.0, True, scale=scale
        )
        return out, (lse,)

    def backward(
        self, grad: Tensor, query: Tensor, keys: Tensor, values: Tensor, out: Tensor, state: State, scale: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
            grad, query, keys, values, out, state[0], 0.0, True, scale=scale
        )


class CudaFlash:
    """16-bit inputs only."""

    name = "CUDA flash"

    def forward(self, query: Tensor, keys: Tensor, values: Tensor, scale: float) -> tuple[Tensor, State]:
        out, *state = torch.ops.aten._scaled_dot_product_flash_attention(
            query, *_widened(query, keys, values), 0.0, True, False, scale=scale
        )
        return out, tuple(state[:7])  # log-sum-exp, lengths, and the random state that dropout would need

    def backward(
        self, grad: Tensor, query: Tensor, keys: Tensor, values: Tensor, out: Tensor, state: State, scale: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        lse, starts_q, starts_k, most_q, most_k, seed, offset = state
        grads = torch.ops.aten._scaled_dot_product_flash_attention_backward(
            grad, query, *_widened(query, keys, values), out, lse, starts_q, starts_k, most_q, most_k, 0.0, True,
            seed, offset, scale=scale,
        )  # fmt: skip
        return _narrowed(grads, keys)


class CudaEfficient:
    """Also for float32, which flash does not take."""

    name = "CUDA memory-efficient"

    def forward(self, query: Tensor, keys: Tensor, values: Tensor, scale: float) -> tuple[Tensor, State]:
        out, *state = torch.ops.aten._scaled_dot_product_efficient_attention(
            query, *_widened(query, keys, values), None, True, 0.0, True, scale=scale
        )
        return out, tuple(state)

    def backward(
        self, grad: Tensor, query: Tensor, keys: Tensor, values: Tensor, out: Tensor, state: State, scale: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        lse, seed, offset = state
        grads = torch.ops.aten._scaled_dot_product_efficient_attention_backward(
            grad, query, *_widened(query, keys, values), None, out, lse, seed, offset, 0.0, [True, True, True, False],
            True, scale=scale,
        )  # fmt: skip
        return _narrowed(grads[:3], keys)


class Recomputed:
    """torch's own choice, its forward pass run again for the backward pass: for devices without the operators above."""

    name = "scaled_dot_product_attention, run twice"

    def forward(self, query: Tensor, keys: Tensor, values: Tensor, scale: float) -> tuple[Tensor, State]:
        keys, values = _widened(query, keys, values)
        attention = torch.nn.functional.scaled_dot_product_attention
        return attention(query, keys, values, is_causal=True, scale=scale), ()

    def backward(
        self, grad: Tensor, query: Tensor, keys: Tensor, values: Tensor, out: Tensor, state: State, scale: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        with torch.enable_grad():
            inputs = [tensor.detach().requires_grad_() for tensor in (query, keys, values)]
            again, _ = self.forward(inputs[0], inputs[1], inputs[2], scale)
        return torch.autograd.grad(again, inputs, grad)  # type: ignore[return-value]


KERNELS: dict[str, tuple[type, ...]] = {"cpu": (CpuFlash,), "cuda": (CudaFlash, CudaEfficient)}


def chosen_kernel(device: torch.device, dtype: torch.dtype) -> Kernel:
    """The first kernel of the device that takes this dtype and gives the gradients of the plain formula."""
    for candidate in KERNELS.get(device.type, ()):
        if _agrees(candidate(), device, dtype):
            return candidate()
    return Recomputed()


def _agrees(kernel: Kernel, device: torch.device, dtype: torch.dtype) -> bool:
    batch, heads, key_heads, tokens, size = PROBE
    generator = torch.Generator().manual_seed(0)
    shapes = ((heads,), (key_heads,), (key_heads,), (heads,))
    query, keys, values, grad = (
        torch.randn(batch, *shape, tokens, size, generator=generator).to(device, dtype) for shape in shapes
    )
    try:
        out, state = kernel.forward(query, keys, values, 0.2)
        ours = (out, *kernel.backward(grad, query, keys, values, out, state, 0.2))
    except (RuntimeError, NotImplementedError, AttributeError, TypeError):  # an operator that is not here, or other
        return False
    theirs = _plain(query.double(), keys.double(), values.double(), grad.double(), 0.2)
    bound = 2e-2 if dtype in (torch.bfloat16, torch.float16) else 1e-4
    return all(bool((a.double() - b).norm() <= bound * b.norm()) for a, b in zip(ours, theirs, strict=True))


@torch.enable_grad()
def _plain(query: Tensor, keys: Tensor, values: Tensor, grad: Tensor, scale: float) -> tuple[Tensor, ...]:
    inputs = [tensor.detach().requires_grad_() for tensor in (query, keys, values)]
    wide_keys, wide_values = _widened(inputs[0], inputs[1], inputs[2])
    scores = inputs[0] @ wide_keys.mT * scale
    hidden = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
    out = scores.masked_fill(hidden, float("-inf")).softmax(-1) @ wide_values
    return out.detach(), *torch.autograd.grad(out, inputs, grad)


def _widened(query: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values repeated for each head of queries."""
    groups = query.shape[1] // keys.shape[1]
    if groups == 1:
        return keys, values
    return keys.repeat_interleave(groups, dim=1), values.repeat_interleave(groups, dim=1)


def _narrowed(grads: Sequence[Tensor], keys: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of repeated keys and values, summed over their repetitions."""
    query, *rest = grads
    if query.shape[1] != keys.shape[1]:
        rest = [grad.unflatten(1, (keys.shape[1], -1)).sum(2) for grad in rest]
    return query, rest[0], rest[1]


class OverDocuments:
    """A kernel that sees only a token's own document: each document of each row is a text by itself.

    `starts` holds for each row where its documents begin, 0 first. Masks are never made, and the work is less than for
    the whole row.
    """

    def __init__(self, kernel: Kernel, starts: Sequence[Sequence[int]]):
        self.kernel, self.starts = kernel, starts
        self.name = kernel.name

    def _cuts(self, tokens: int) -> list[tuple[slice, slice]]:
        cuts = []
        for row, starts in enumerate(self.starts):
            ends = [*starts[1:], tokens]
            cuts += [(slice(row, row + 1), slice(a, b)) for a, b in zip(starts, ends, strict=True) if a < b]
        return cuts

    def forward(self, query: Tensor, keys: Tensor, values: Tensor, scale: float) -> tuple[Tensor, State]:
        out = _by_token(query)
        states = []
        for row, cut in self._cuts(query.shape[2]):
            own = [tensor[row, :, cut] for tensor in (query, keys, values)]
            out[row, :, cut], state = self.kernel.forward(own[0], own[1], own[2], scale)
            states.append(state)
        return out, tuple(states)

    def backward(
        self, grad: Tensor, query: Tensor, keys: Tensor, values: Tensor, out: Tensor, state: State, scale: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        grads = (_by_token(query), _by_token(keys), _by_token(values))
        for (row, cut), left in zip(self._cuts(query.shape[2]), state, strict=True):
            own = [tensor[row, :, cut] for tensor in (grad, query, keys, values, out)]
            parts = self.kernel.backward(own[0], own[1], own[2], own[3], own[4], left, scale)
            for whole, part in zip(grads, parts, strict=True):
                whole[row, :, cut] = part
        return grads


def _by_token(like: Tensor) -> Tensor:
    """An empty tensor of that shape, (B, H, S, D), whose heads of one token lie side by side."""
    batch, heads, tokens, size = like.shape
    return like.new_empty(batch, tokens, heads, size).transpose(1, 2)
