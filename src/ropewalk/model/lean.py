"""A training step that holds little: loss and gradients of causal models of known families, made by hand layer by layer.

Autograd keeps every intermediate of every layer until the backward pass, about thirty times the hidden state. Here a
layer keeps its input, what attention gave and its log-sum-exp (`ATTENTION`), and the backward pass makes the rest again,
a tile of the sequence at a time: projections and MLP run twice, attention once. With room to spare a layer keeps
everything and nothing runs twice (`EVERYTHING`); with none it keeps its input alone (`INPUT`), and attention runs twice
too; `HOST` is `ATTENTION` with what is kept in the host's memory. Gradients of the hidden state are written over one
another, those of the loss over the last hidden state, so that logits exist for a chunk of tokens only.

Gradients are those of the stock model: the same sums, cut up otherwise.

Shape letters: B batch, S tokens, E hidden size, H heads, D head dimension, V vocabulary, T tokens of a chunk.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ropewalk.model.attention import Kernel, State, chosen_kernel
from ropewalk.model.loss import loss_and_gradient
from ropewalk.model.sharding import Weights, Whole
from ropewalk.model.view import LayerView

EVERYTHING, ATTENTION, INPUT, HOST = "everything", "attention", "input", "host"
TILE = 1024  # tokens of all rows: below, products get too small to run at full speed


@dataclass
class _Kept:
    """What a layer leaves for its backward pass; None where it is made again."""

    hidden: Tensor  # (B, S, E), the layer's input
    out: Tensor | None = None  # (B, H, S, D), what attention gave
    state: State = ()
    qkv: tuple[Tensor, Tensor, Tensor] | None = None
    before: tuple[Tensor, tuple[Tensor, ...]] | None = None  # input, (queries, keys, values) with their graph
    after: tuple[Tensor, Tensor, Tensor] | None = None  # input, mixed, output with their graph


class LeanEngine:
    """Adds the gradients of a batch to `.grad` of the parameters that want one.

    `keeps` holds one of EVERYTHING, ATTENTION, INPUT, HOST for each layer. `weights` says who holds the parameters.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        view: LayerView,
        keeps: Sequence[str],
        compute: torch.dtype,
        weights: Weights | None = None,
    ):
        self.model, self.view, self.body = model, view, view.body
        self.weights: Weights = weights or Whole()
        self.keeps, self.compute = list(keeps), compute
        self.device = next(model.parameters()).device
        self.kernel: Kernel = chosen_kernel(self.device, compute)

    @torch.no_grad()
    def accumulate(
        self, tokens_BS: Tensor, targets_BS: Tensor, shares_BS: Tensor, positions_BS: Tensor, kernel: Kernel
    ) -> float:
        """The sum over targets of loss times share; its gradients are added to those of the parameters.

        Position s of a row sees the tokens up to s, as far as `kernel` lets it, and is asked for `targets_BS[s]`. More
        positions than tokens only tell dynamic scalings how far the text reaches.
        """
        with self.weights.gathered(self.model, gradients=True):
            return self._accumulate(tokens_BS, targets_BS, shares_BS, positions_BS, kernel)

    def _accumulate(
        self, tokens_BS: Tensor, targets_BS: Tensor, shares_BS: Tensor, positions_BS: Tensor, kernel: Kernel
    ) -> float:
        hidden = self.body.embed_tokens(tokens_BS)
        cos, sin = self.view.rotation(hidden, positions_BS)
        rotation = (cos[:, :, : hidden.shape[1]], sin[:, :, : hidden.shape[1]])
        layers: list[Any] = list(self.body.layers)
        kept: list[_Kept] = []
        for layer, keep in zip(layers, self.keeps, strict=True):
            with self.weights.gathered(layer):
                hidden, left = self._forward(layer, hidden, rotation, kernel, keep)
            kept.append(left)
        head: Any = self.model.get_output_embeddings()
        flat = hidden.flatten(0, 1)
        loss = loss_and_gradient(flat, self.body.norm, head, targets_BS.flatten(), shares_BS.flatten())
        grad = flat.view(hidden.shape)  # written over the hidden state
        for layer in reversed(layers):
            with self.weights.gathered(layer, gradients=True):
                self._backward(layer, kept.pop(), grad, rotation, kernel)
        self._to_embedding(tokens_BS, grad)
        return loss

    def hidden(self, tokens_BS: Tensor, positions_BS: Tensor | None = None, kernel: Kernel | None = None) -> Tensor:
        """Last hidden states after the final norm, (B, S, E): what is compared with the stock model before a run.

        Positions (None: 0 .. S - 1) and `kernel` (None: the whole row sees itself) are as in `accumulate`. The weights
        outside of layers are to be whole.
        """
        hidden = self.body.embed_tokens(tokens_BS)
        if positions_BS is None:
            positions_BS = torch.arange(tokens_BS.shape[1], device=tokens_BS.device).expand(tokens_BS.shape)
        cos, sin = self.view.rotation(hidden, positions_BS)
        rotation = (cos[:, :, : hidden.shape[1]], sin[:, :, : hidden.shape[1]])
        for layer, keep in zip(self.body.layers, self.keeps, strict=True):
            with self.weights.gathered(layer):
                hidden, _ = self._forward(layer, hidden, rotation, kernel or self.kernel, keep)
        return self.body.norm(hidden)

    def _forward(
        self, layer: Any, hidden: Tensor, rotation: tuple[Tensor, Tensor], kernel: Kernel, keep: str
    ) -> tuple[Tensor, _Kept]:
        kept = _Kept(hidden)
        scale = layer.self_attn.scaling
        if keep == EVERYTHING:
            kept.before = self._before(layer, hidden, rotation)
            query, keys, values = (part.detach() for part in kept.before[1])
            kept.qkv = (query, keys, values)
            out, kept.state = kernel.forward(query, keys, values, scale)
            kept.out, kept.after = out, self._after(layer, hidden, out)
            return kept.after[2].detach(), kept
        out, state = kernel.forward(*self._qkv(layer, hidden, rotation), scale)
        output = torch.empty_like(hidden)
        for cut in self._tiles(hidden):
            output[:, cut] = self.view.after(layer, hidden[:, cut], _mixed(out[:, :, cut]))
        if keep != INPUT:
            kept.out, kept.state = out, state
        if keep == HOST:
            kept.hidden, kept.out = _on_host(hidden), _on_host(out)
        return output, kept

    def _backward(self, layer: Any, kept: _Kept, grad: Tensor, rotation: tuple[Tensor, Tensor], kernel: Kernel) -> None:
        """Turns `grad`, of the layer's output, into that of its input, in place."""
        hidden = kept.hidden.to(grad.device, non_blocking=True)
        scale = layer.self_attn.scaling
        qkv = kept.qkv
        if kept.out is None:
            qkv = self._qkv(layer, hidden, rotation)
            kept.out, kept.state = kernel.forward(*qkv, scale)
        out = kept.out.to(grad.device, non_blocking=True)
        mixed_grad = torch.empty_like(out)
        for cut in [slice(None)] if kept.after else self._tiles(hidden):
            inputs, mixed, output = kept.after or self._after(layer, hidden[:, cut], out[:, :, cut])
            torch.autograd.backward(output, grad[:, cut])
            mixed_grad[:, :, cut] = _grad(mixed).unflatten(-1, (-1, self.view.head_dim)).transpose(1, 2)
            grad[:, cut] = _grad(inputs)
        kept.after = None
        if qkv is None:
            qkv = self._qkv(layer, hidden, rotation)
        grads = kernel.backward(mixed_grad, *qkv, out, kept.state, scale)
        del mixed_grad, out, qkv, kept.out, kept.qkv
        for cut in [slice(None)] if kept.before else self._tiles(hidden):
            turn = (rotation[0][:, :, cut], rotation[1][:, :, cut])
            inputs, parts = kept.before or self._before(layer, hidden[:, cut], turn)
            torch.autograd.backward(parts, [part[:, :, cut] for part in grads])
            grad[:, cut] += _grad(inputs)

    @torch.enable_grad()
    def _before(self, layer: Any, hidden: Tensor, rotation: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
        inputs = hidden.detach().requires_grad_()
        normed = self.view.normed(layer, inputs)
        turns = {"q": rotation, "k": rotation, "v": None}
        return inputs, tuple(self.view.heads(layer, kind, normed, turn) for kind, turn in turns.items())

    @torch.enable_grad()
    def _after(self, layer: Any, hidden: Tensor, out: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        inputs, mixed = hidden.detach().requires_grad_(), _mixed(out).detach().requires_grad_()
        return inputs, mixed, self.view.after(layer, inputs, mixed)

    def _qkv(self, layer: Any, hidden: Tensor, rotation: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Rotated queries and keys, and values, without a graph, a tile at a time."""
        batch, tokens, _ = hidden.shape
        heads = {"q": self.view.query_heads, "k": self.view.key_heads, "v": self.view.key_heads}
        whole: dict[str, Tensor] = {}
        for cut in self._tiles(hidden):
            normed = self.view.normed(layer, hidden[:, cut])
            turn = (rotation[0][:, :, cut], rotation[1][:, :, cut])
            for kind, count in heads.items():
                part = self.view.heads(layer, kind, normed, None if kind == "v" else turn)
                if kind not in whole:  # its dtype is the layer's to say
                    whole[kind] = part.new_empty(batch, tokens, count, self.view.head_dim).transpose(1, 2)
                whole[kind][:, :, cut] = part
        return whole["q"], whole["k"], whole["v"]

    def _tiles(self, hidden: Tensor) -> Iterator[slice]:
        size = max(1, TILE // hidden.shape[0])
        for start in range(0, hidden.shape[1], size):
            yield slice(start, min(start + size, hidden.shape[1]))

    def _to_embedding(self, tokens_BS: Tensor, grad: Tensor) -> None:
        embedding: Any = self.body.embed_tokens
        if type(embedding) is torch.nn.Embedding and embedding.max_norm is None and not embedding.scale_grad_by_freq:
            weight = embedding.weight
            if weight.requires_grad:
                if weight.grad is None:
                    weight.grad = torch.zeros_like(weight)
                if embedding.padding_idx is not None:  # torch gives that row no gradient
                    grad = grad.masked_fill((tokens_BS == embedding.padding_idx)[..., None], 0.0)
                weight.grad.index_add_(0, tokens_BS.flatten(), grad.flatten(0, 1).to(weight.dtype))
        elif any(parameter.requires_grad for parameter in embedding.parameters()):
            with torch.enable_grad():
                embedded = embedding(tokens_BS)
            torch.autograd.backward(embedded, grad)


def _mixed(out_BHSD: Tensor) -> Tensor:
    return out_BHSD.transpose(1, 2).flatten(2)


def _grad(leaf: Tensor) -> Tensor:
    assert leaf.grad is not None
    return leaf.grad


def _on_host(tensor: Tensor) -> Tensor:
    """A copy in the host's memory, pinned where that lets it travel beside the computing."""
    if tensor.device.type != "cuda":
        return tensor
    copy = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu", pin_memory=True)
    return copy.copy_(tensor, non_blocking=True)
