"""One decoder layer in three parts: what goes into attention, attention itself, and what comes after it.

Both engines, for training and for evaluation, are written over this view; a family is here when its layers follow one
of the two orders below. Everything else about a layer is its own modules, called as they are, so that biases, norms of
queries and keys, and LoRA inside a projection need no word here.

Shape letters: B batch, S tokens, H heads of queries or of keys, D head dimension.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel


class LayerView:
    """Llama's order: norm, projections, rotation; after attention a projection and the MLP, a norm before it.

    Also Mistral, Qwen2 (biases), Qwen3 (norms of each head's queries and keys) and SmolLM3 (some layers not rotated).
    """

    def __init__(self, model: PreTrainedModel):
        self.body: Any = model.base_model
        first = self.body.layers[0].self_attn
        self.head_dim: int = first.head_dim
        self.key_heads: int = first.k_proj.out_features // first.head_dim
        self.query_heads: int = first.q_proj.out_features // first.head_dim

    def rotation(self, hidden: Tensor, positions_BS: Tensor) -> tuple[Tensor, Tensor]:
        """cos and sin, (B, 1, S, D) each; in a dtype of the hidden states'."""
        cos, sin = self.body.rotary_emb(hidden, positions_BS)
        return cos[:, None], sin[:, None]

    def normed(self, layer: Any, hidden: Tensor) -> Tensor:
        """What the projections read."""
        return rms_normed(layer.input_layernorm, hidden)

    def heads(self, layer: Any, kind: str, normed: Tensor, rotation: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Queries, keys or values ("q", "k", "v"), (B, H, S, D); rotated where that is given and the layer rotates."""
        attention = layer.self_attn
        heads = self._projected(attention, kind, normed).transpose(1, 2)
        if rotation is None or not getattr(attention, "use_rope", True):
            return heads
        return rotated(heads, *rotation)

    def _projected(self, attention: Any, kind: str, normed: Tensor) -> Tensor:
        projected = getattr(attention, f"{kind}_proj")(normed).unflatten(-1, (-1, self.head_dim))
        norm = getattr(attention, f"{kind}_norm", None)
        return projected if norm is None else rms_normed(norm, projected)

    def after(self, layer: Any, hidden: Tensor, mixed: Tensor) -> Tensor:
        """The layer's output, from its input and what attention mixed, (B, S, H * D)."""
        hidden = hidden + layer.self_attn.o_proj(mixed)
        return hidden + layer.mlp(rms_normed(layer.post_attention_layernorm, hidden))


class PostNormView(LayerView):
    """OLMo 2's order: norms after attention and after the MLP; queries and keys are normed over all heads at once."""

    def normed(self, layer: Any, hidden: Tensor) -> Tensor:
        return hidden

    def _projected(self, attention: Any, kind: str, normed: Tensor) -> Tensor:
        projected = getattr(attention, f"{kind}_proj")(normed)
        norm = getattr(attention, f"{kind}_norm", None)
        return (projected if norm is None else rms_normed(norm, projected)).unflatten(-1, (-1, self.head_dim))

    def after(self, layer: Any, hidden: Tensor, mixed: Tensor) -> Tensor:
        hidden = hidden + rms_normed(layer.post_attention_layernorm, layer.self_attn.o_proj(mixed))
        return hidden + rms_normed(layer.post_feedforward_layernorm, layer.mlp(hidden))


VIEWS: dict[str, type[LayerView]] = {
    "llama": LayerView,
    "mistral": LayerView,
    "qwen2": LayerView,
    "qwen3": LayerView,
    "smollm3": LayerView,
    "olmo2": PostNormView,
}


def layer_view(model: PreTrainedModel) -> LayerView | None:
    """The view of a model of a known family whose tokens all attend to everything before them; None for others.

    That the layers are what the family's name promises is for the engines to see: they compare with the stock model.
    """
    return None if without_view(model.config) else VIEWS[model.config.get_text_config().model_type](model)


def without_view(config: PretrainedConfig) -> str | None:
    """Why a model of this config has no view; None where it has one."""
    config = config.get_text_config()
    layer_types = set(getattr(config, "layer_types", None) or ["full_attention"])
    sliding = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    if config.model_type not in VIEWS:
        return f"its type is {config.model_type!r}"
    if layer_types != {"full_attention"} or sliding:
        return (
            f"not all of its layers attend to the whole text (sliding_window {getattr(config, 'sliding_window', None)})"
        )
    return None


def rotated(x_BHSD: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Each half of the head turned against the other; `cos` and `sin` hold each pair's value twice."""
    return _Rotation.apply(x_BHSD, cos, sin)  # type: ignore[return-value]


class _Rotation(torch.autograd.Function):
    """A rotation keeps nothing of what it turned: its gradient is the gradient turned back."""

    @staticmethod
    def forward(ctx: Any, x_BHSD: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _turned(x_BHSD, cos, sin, 1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _turned(grads[0], cos, sin, -1), None, None


def _turned(x_BHSD: Tensor, cos: Tensor, sin: Tensor, way: int) -> Tensor:
    half = x_BHSD.shape[-1] // 2
    low, high = x_BHSD[..., :half], x_BHSD[..., half:]
    turned = torch.empty_like(x_BHSD)
    torch.addcmul(low * cos[..., :half], high, sin[..., :half], value=-way, out=turned[..., :half])
    torch.addcmul(high * cos[..., half:], low, sin[..., half:], value=way, out=turned[..., half:])
    return turned


def rms_normed(norm: Any, x: Tensor) -> Tensor:
    """What the module gives; without the intermediates that autograd would keep, where it is a plain RMSNorm."""
    eps = getattr(norm, "variance_epsilon", None)
    if eps is None or x.dtype != norm.weight.dtype or not type(norm).__name__.endswith("RMSNorm"):
        return norm(x)
    return _RmsNorm.apply(x, norm.weight, eps)  # type: ignore[return-value]


class _RmsNorm(torch.autograd.Function):
    """x / rms(x) * weight, in few passes over x; keeps x and a number a token."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        size = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        scale = torch.rsqrt(size.square_().div_(x.shape[-1]).add_(eps))
        ctx.save_for_backward(x, weight, scale)
        return (x * scale).mul_(weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight, scale = ctx.saved_tensors
        product = (grads[0] * x).flatten(0, -2)
        weight_grad = product.t() @ scale.flatten() if ctx.needs_input_grad[1] else None
        if not ctx.needs_input_grad[0]:
            return None, weight_grad, None
        along = (product @ weight).view(scale.shape)
        x_grad = (grads[0] * weight).mul_(scale)
        return x_grad.addcmul_(x, along * scale**3 / x.shape[-1], value=-1), weight_grad, None
