"""A forward pass for evaluation over the decoder layers of known families, that does only what is asked for.

Four things that the stock forward does not: a beginning that prompts share is attended to where it lies, in one buffer
of keys and values, without a copy for each prompt and without a mask; the last layer makes queries, attention and MLP
for the wanted rows only, and none at all where only keys and values are wanted; keys of fewer heads are never repeated;
and nothing is held back for a backward pass. Its logits are compared with the stock model's before it is used.

Shape letters: B batch, S own tokens, P tokens before, R wanted rows, H heads, K heads of keys and values, D head dimension.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.bias import causal_lower_right
from transformers import PreTrainedModel

from ropewalk.model.view import LayerView


class KeyValues:
    """Rotated keys and values of texts of one length, in a buffer that is made once: (layers, 2, lanes, K, capacity, D).

    The first `length` tokens are held. Cropping frees nothing and costs nothing; what is written next overwrites.
    Reading and writing concern the `lanes` in use.
    """

    def __init__(self, layers: int, heads: int, capacity: int, head_dim: int, like: Tensor, lanes: int = 1):
        self._buffer = torch.empty(
            layers, 2, lanes, heads, capacity, head_dim, dtype=like.dtype, device=like.device
        )  # not zeroed: pages are touched as they are written
        self.length = 0
        self.lanes = range(1)
        self._filled = 1

    def spread(self, lanes: int) -> None:
        """Uses so many lanes; those that do not yet hold the text of the first get a copy."""
        if lanes > self._filled:
            self._buffer[:, :, self._filled : lanes, :, : self.length] = self._buffer[:, :, :1, :, : self.length]
        self._filled = lanes
        self.lanes = range(lanes)

    def layer(self, index: int) -> tuple[Tensor, Tensor]:
        """Keys and values held for one layer, (lanes, K, length, D) each, without a copy."""
        held = self._buffer[index, :, self.lanes.start : self.lanes.stop, :, : self.length]
        return held[0], held[1]

    def write(self, index: int, keys: Tensor, values: Tensor) -> None:
        """Puts a layer's new keys and values behind those held; `grow` makes them count."""
        place = self._buffer[index, :, self.lanes.start : self.lanes.stop, :, self.length : self.length + keys.shape[2]]
        place[0], place[1] = keys, values

    def grow(self, tokens: int) -> None:
        self.length += tokens

    def crop(self, length: int) -> None:
        """Forgets what is behind the first `length` tokens."""
        self.length = min(self.length, length)


class LeanForward:
    """Last hidden states of chosen rows of a batch, after the final norm."""

    def __init__(self, model: PreTrainedModel, view: LayerView):
        self.view, self.body = view, view.body
        embedding: Any = model.get_input_embeddings()
        self._like: Tensor = embedding.weight  # projections may be packed in fewer bits

    def buffer(self, capacity: int, lanes: int = 1) -> KeyValues:
        """An empty buffer for texts of up to `capacity` tokens, one a lane."""
        return KeyValues(len(self.body.layers), self.view.key_heads, capacity, self.view.head_dim, self._like, lanes)

    @property
    def held_bytes(self) -> int:
        """What the buffer takes for each token of a lane."""
        return len(self.body.layers) * 2 * self.view.key_heads * self.view.head_dim * self._like.element_size()

    def rows(
        self, tokens_BS: Tensor, wanted: Sequence[range], before: KeyValues | None = None, *, keep: bool = False
    ) -> Tensor:
        """(B, R, hidden) for the wanted rows, disjoint ranges in order; R may be 0.

        `before` holds what the texts come after: the first B / lanes of them after the first lane in use, and so on.
        With `keep` (one text a lane) their own keys and values are put behind it.
        """
        hidden = self.body.embed_tokens(tokens_BS)
        offset = before.length if before else 0
        positions = torch.arange(offset, offset + tokens_BS.shape[1], device=tokens_BS.device)[None]
        rotation = self.view.rotation(hidden, positions)
        whole, last = [range(tokens_BS.shape[1])], len(self.body.layers) - 1
        for index in range(len(self.body.layers)):
            hidden = self._layer(index, hidden, rotation, whole if index < last else wanted, before, keep)
        if before is not None and keep:
            before.grow(tokens_BS.shape[1])
        return self.body.norm(hidden)

    def _layer(
        self,
        index: int,
        hidden: Tensor,
        rotation: tuple[Tensor, Tensor],
        wanted: Sequence[range],
        before: KeyValues | None,
        keep: bool,
    ) -> Tensor:
        view, layer = self.view, self.body.layers[index]
        normed = view.normed(layer, hidden)
        keys, values = view.heads(layer, "k", normed, rotation), view.heads(layer, "v", normed)
        mixed = []
        for rows in wanted:
            cut = slice(rows.start, rows.stop)
            turn = (rotation[0][:, :, cut], rotation[1][:, :, cut])
            query = view.heads(layer, "q", normed[:, cut], turn)
            held = before.layer(index) if before and before.length else None
            mixed.append(
                attend(query, keys[:, :, : rows.stop], values[:, :, : rows.stop], held, layer.self_attn.scaling)
                .transpose(1, 2)
                .flatten(2)
            )
        if keep and before is not None:
            before.write(index, keys, values)
        if not mixed:
            return hidden[:, :0]
        if len(wanted) > 1 or len(wanted[0]) < hidden.shape[1]:
            hidden = torch.cat([hidden[:, rows.start : rows.stop] for rows in wanted], dim=1)
        return view.after(layer, hidden, torch.cat(mixed, dim=1) if len(mixed) > 1 else mixed[0])


def attend(query: Tensor, keys: Tensor, values: Tensor, held: tuple[Tensor, Tensor] | None, scale: float) -> Tensor:
    """Causal attention of the last rows over their own text and what is held before it, (B, H, R, D).

    On the CPU the parts are attended to apart, each by the fused kernel, and merged by their log-sum-exp: exact, with no
    mask. Elsewhere by one call whose causal edge is the lower right corner.
    """
    rows, own = query.shape[2], keys.shape[2]
    if query.device.type != "cpu":
        return _joined(query, keys, values, held, scale)
    parts = [_flash(query, keys[:, :, own - rows :], values[:, :, own - rows :], scale, causal=True)]
    if own > rows:
        parts.append(_flash(query, keys[:, :, : own - rows], values[:, :, : own - rows], scale, causal=False))
    if held is not None:
        parts.append(_over_held(query, *held, scale))
    return merged(parts)


def _over_held(query_BHRD: Tensor, keys: Tensor, values: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Attention over the held keys of each lane, and its log-sum-exp.

    All queries that meet one head of a lane's keys, of every text after it and of every query head in the group, stand
    in one row: each key is read once.
    """
    lanes, key_heads = keys.shape[:2]
    split = query_BHRD.unflatten(1, (key_heads, -1)).unflatten(0, (lanes, -1)).permute(0, 2, 3, 1, 4, 5)
    out, weight = _flash(split.reshape(lanes, key_heads, -1, keys.shape[3]), keys, values, scale)
    out = out.unflatten(2, split.shape[2:5]).permute(0, 3, 1, 2, 4, 5).flatten(2, 3).flatten(0, 1)
    return out, weight.unflatten(2, split.shape[2:5]).permute(0, 3, 1, 2, 4).flatten(2, 3).flatten(0, 1)


def merged(parts: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Attention over the union of disjoint keys, from (output, log-sum-exp) over each."""
    if len(parts) == 1:
        return parts[0][0]
    weights = torch.stack([weight for _, weight in parts]).softmax(0).to(parts[0][0].dtype)
    total = parts[0][0] * weights[0, ..., None]
    for (out, _), share in zip(parts[1:], weights[1:], strict=True):
        total.addcmul_(out, share[..., None])
    return total


def _flash(query: Tensor, keys: Tensor, values: Tensor, scale: float, *, causal: bool = False) -> tuple[Tensor, Tensor]:
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(query, keys, values, 0.0, causal, scale=scale)


def _joined(query: Tensor, keys: Tensor, values: Tensor, held: tuple[Tensor, Tensor] | None, scale: float) -> Tensor:
    attention = torch.nn.functional.scaled_dot_product_attention
    grouped = query.shape[1] != keys.shape[1]
    if held is not None:
        texts = query.shape[0] // held[0].shape[0]
        keys, values = (
            torch.cat([before[:, None].expand(-1, texts, -1, -1, -1).flatten(0, 1), own], dim=2)
            for before, own in zip(held, (keys, values), strict=True)
        )
    if grouped and query.dtype == torch.float32:  # no fused kernel takes groups in float32 there
        keys, values = (part.repeat_interleave(query.shape[1] // part.shape[1], dim=1) for part in (keys, values))
        grouped = False
    if query.shape[2] == keys.shape[2]:
        return attention(query, keys, values, is_causal=True, scale=scale, enable_gqa=grouped)
    edge: Any = causal_lower_right(query.shape[2], keys.shape[2])
    return attention(query, keys, values, attn_mask=edge, scale=scale, enable_gqa=grouped)
