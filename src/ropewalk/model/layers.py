"""A forward pass for evaluation over the decoder layers of the Llama family, that does only what is asked for.

Three things that the stock forward does not: a beginning shared by many prompts is attended to in place, without a copy
of its keys for each prompt and without a mask; the last layer makes queries, attention and MLP for the wanted rows
only; and nothing is held back for a backward pass. Its logits are compared with the stock model's before it is used.

Shape letters: B batch, S own tokens, P shared tokens, R wanted rows (the last of S), H heads, D head dimension.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

FAMILIES = frozenset({"llama", "mistral", "qwen2", "qwen3"})  # pre-norm layers, rotation of the whole head in halves


@dataclass(frozen=True)
class SharedStart:
    """Rotated keys and values of a beginning, (1, H, P, D) a layer."""

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    length: int

    def first(self, length: int) -> "SharedStart | None":
        """The first `length` tokens of it; None for none."""
        if length == 0:
            return None
        cut = [tuple(part[:, :, :length] for part in parts) for parts in (self.keys, self.values)]
        return SharedStart(cut[0], cut[1], length)


class LeanForward:
    """Last hidden states of the last rows of a batch, after the final norm."""

    def __init__(self, model: PreTrainedModel):
        self.body: Any = model.base_model
        first = self.body.layers[0].self_attn
        self.heads = first.q_proj.out_features // first.head_dim
        self.head_dim: int = first.head_dim

    def rows(self, tokens_BS: Tensor, count: int, start: SharedStart | None = None) -> Tensor:
        """(B, count, hidden) for the last `count` tokens; `start` is what all of them come after."""
        hidden, _ = self._run(tokens_BS, start, count)
        return self.body.norm(hidden)

    def shared_start(self, tokens_BS: Tensor) -> SharedStart:
        """Keys and values of one text, (1, S), for prompts that begin with it."""
        _, kept = self._run(tokens_BS, None, 1)
        return SharedStart(tuple(k for k, _ in kept), tuple(v for _, v in kept), tokens_BS.shape[1])

    def _run(
        self, tokens_BS: Tensor, start: SharedStart | None, count: int
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        hidden = self.body.embed_tokens(tokens_BS)
        before = start.length if start else 0
        positions = torch.arange(before, before + tokens_BS.shape[1], device=tokens_BS.device)[None]
        cos, sin = (part[:, None] for part in self.body.rotary_emb(hidden, positions))
        kept: list[tuple[Tensor, Tensor]] = []
        for index, layer in enumerate(self.body.layers):
            wanted = count if index == len(self.body.layers) - 1 else tokens_BS.shape[1]
            attention, normed = layer.self_attn, layer.input_layernorm(hidden)
            keys = rotated(self._heads(attention, "k", normed), cos, sin)
            values = self._heads(attention, "v", normed)
            query = self._heads(attention, "q", normed[:, -wanted:])
            query = rotated(query, cos[:, :, -wanted:], sin[:, :, -wanted:])
            shared = (start.keys[index], start.values[index]) if start else None
            mixed = attend(query, keys, values, shared, attention.scaling)
            hidden = hidden[:, -wanted:] + attention.o_proj(mixed.transpose(1, 2).flatten(2))
            hidden = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
            kept.append((keys, values))
        return hidden, kept

    def _heads(self, attention: Any, kind: str, normed: Tensor) -> Tensor:
        """Queries, keys or values, (B, H, S, D); keys and values of fewer heads are repeated."""
        projected = getattr(attention, f"{kind}_proj")(normed).unflatten(-1, (-1, self.head_dim))
        norm = getattr(attention, f"{kind}_norm", None)
        projected = (projected if norm is None else norm(projected)).transpose(1, 2)
        repeats = self.heads // projected.shape[1]
        return projected if repeats == 1 else projected.repeat_interleave(repeats, dim=1)


def rotated(x_BHSD: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Each half of the head turned against the other; `cos` and `sin` hold each pair's value twice."""
    half = x_BHSD.shape[-1] // 2
    low, high = x_BHSD[..., :half], x_BHSD[..., half:]
    turned = torch.empty_like(x_BHSD)
    torch.addcmul(low * cos[..., :half], high, sin[..., :half], value=-1, out=turned[..., :half])
    torch.addcmul(high * cos[..., half:], low, sin[..., half:], out=turned[..., half:])
    return turned


def attend(query: Tensor, keys: Tensor, values: Tensor, shared: tuple[Tensor, Tensor] | None, scale: float) -> Tensor:
    """Causal attention of the last rows over their own tokens and a shared beginning, (B, H, R, D).

    On the CPU the parts are attended to apart, each by the fused kernel, and merged by their log-sum-exp: exact, with no
    mask. Elsewhere by one masked call.
    """
    rows, own = query.shape[2], keys.shape[2]
    if query.device.type != "cpu":
        return _masked(query, keys, values, shared, scale)
    parts = [_flash(query, keys[:, :, own - rows :], values[:, :, own - rows :], scale, causal=True)]
    if own > rows:
        parts.append(_flash(query, keys[:, :, : own - rows], values[:, :, : own - rows], scale, causal=False))
    if shared is not None:
        # one beginning for all prompts: their queries stand in one row, and the keys are read once
        batch = query.shape[0]
        joined = query.transpose(0, 1).flatten(1, 2)[None]
        out, weight = _flash(joined, *shared, scale, causal=False)
        parts.append(
            (out[0].unflatten(1, (batch, rows)).transpose(0, 1), weight[0].unflatten(1, (batch, rows)).transpose(0, 1))
        )
    return merged(parts)


def merged(parts: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Attention over the union of disjoint keys, from (output, log-sum-exp) over each."""
    if len(parts) == 1:
        return parts[0][0]
    weights = torch.stack([weight for _, weight in parts]).softmax(0).to(parts[0][0].dtype)
    total = parts[0][0] * weights[0, ..., None]
    for (out, _), share in zip(parts[1:], weights[1:], strict=True):
        total.addcmul_(out, share[..., None])
    return total


def _flash(query: Tensor, keys: Tensor, values: Tensor, scale: float, *, causal: bool) -> tuple[Tensor, Tensor]:
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(query, keys, values, 0.0, causal, scale=scale)


def _masked(query: Tensor, keys: Tensor, values: Tensor, shared: tuple[Tensor, Tensor] | None, scale: float) -> Tensor:
    attention = torch.nn.functional.scaled_dot_product_attention
    rows = query.shape[2]
    if shared is None and rows == keys.shape[2]:
        return attention(query, keys, values, is_causal=True, scale=scale)
    if shared is not None:
        batch = (query.shape[0], -1, -1, -1)
        keys = torch.cat([shared[0].expand(batch), keys], dim=2)
        values = torch.cat([shared[1].expand(batch), values], dim=2)
    seen = torch.ones(rows, keys.shape[2], dtype=torch.bool, device=query.device).tril(keys.shape[2] - rows)
    return attention(query, keys, values, attn_mask=seen, scale=scale)
