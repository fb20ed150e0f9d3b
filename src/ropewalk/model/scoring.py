"""Evaluation forward passes: losses of chosen targets, and answers checked without generating them.

Plain and exact: causal models with static rotation, one window after another. Logits exist for scored rows only.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from ropewalk.errors import DataError
from ropewalk.model.head import BodyAndHead

# B batch, L length, R scored rows, V vocabulary
CHUNK_NUMBERS = 2**24  # float32 logits held at once: 64 MiB


class Scorer:
    """Scores token windows with one model."""

    def __init__(self, model: PreTrainedModel):
        self.model = model
        self.parts = BodyAndHead(model)
        self.device = next(model.parameters()).device

    @torch.inference_mode()
    def target_losses(self, windows: Sequence[Sequence[int]], first: int) -> Tensor:
        """Negative log-likelihood in nats of tokens first .. L - 1 of each window, (B, L - first) float32, on the CPU.

        The windows are of one length L; `first` is at least 1, since the first token of a window has no context.
        Raises DataError when a loss is not finite.
        """
        tokens_BL = torch.tensor(windows, device=self.device)
        targets_BR = tokens_BL[:, first:]
        head = self.parts.head
        if self.parts.is_plain and head is not None:
            hidden = self.parts.hidden(tokens_BL[:, :-1])[:, first - 1 :]
            rows = max(1, CHUNK_NUMBERS // (head.weight.shape[0] * len(windows)))
            losses = [
                _losses(head(hidden[:, i : i + rows]), targets_BR[:, i : i + rows])
                for i in range(0, hidden.shape[1], rows)
            ]
            losses_BR = torch.cat(losses, dim=1)
        else:
            kept = torch.arange(first - 1, tokens_BL.shape[1] - 1, device=self.device)
            logits = self.model(tokens_BL[:, :-1], logits_to_keep=kept, use_cache=False).logits
            losses_BR = _losses(logits[:, -targets_BR.shape[1] :], targets_BR)
        if not bool(losses_BR.isfinite().all()):
            raise DataError(
                f"the model gives a loss that is not a finite number, in a window of {tokens_BL.shape[1]} tokens.\n"
                "  Weights that are broken, or a dtype too small for them, do this.\n"
                "  Try --dtype float32; if it stays, fetch the checkpoint again."
            )
        return losses_BR.cpu()

    @torch.inference_mode()
    def greedy_matches(self, trunk: "Trunk", suffixes: Sequence[Sequence[int]], answer: int, shared: int) -> list[bool]:
        """Whether greedy decoding after each prompt would write its answer; a prompt is trunk[:shared] + suffix.

        The last `answer` tokens of each suffix are the answer. Greedy decoding writes it if and only if each of its
        tokens is the most likely one after the prompt and the answer's earlier tokens (induction over the tokens), so
        one forward pass decides what generation would take `answer` passes for.
        """
        tokens_BL = torch.tensor(suffixes, device=self.device)
        cache = trunk.cache(shared, len(suffixes)) if shared else None
        positions = torch.arange(shared, shared + tokens_BL.shape[1] - 1, device=self.device)[None]
        output = self.model(
            tokens_BL[:, :-1],
            past_key_values=cache,
            position_ids=positions,
            use_cache=cache is not None,
            logits_to_keep=answer,
        )
        best_BR = output.logits[:, -answer:].argmax(-1)
        return (best_BR == tokens_BL[:, -answer:]).all(-1).tolist()

    @torch.inference_mode()
    def trunk(self, tokens: Sequence[int]) -> "Trunk":
        """Keys and values of a text that prompts share as their beginning; empty where sharing is not exact."""
        if not tokens or not shares_prefixes(self.model):
            return Trunk(None, 0)
        cache = DynamicCache(config=self.model.config)
        tokens_BL = torch.tensor([list(tokens)], device=self.device)
        self.model.base_model(tokens_BL, past_key_values=cache, use_cache=True)
        return Trunk(cache, len(tokens))


class Trunk:
    """The cached beginning of many prompts."""

    def __init__(self, cache: DynamicCache | None, length: int):
        self._cache = cache
        self.length = length

    def cache(self, length: int, batch: int) -> DynamicCache:
        """The first `length` positions, seen by `batch` prompts at once without being copied."""
        assert self._cache is not None
        part = DynamicCache()
        for index, layer in enumerate(self._cache.layers):
            keys: Tensor = layer.keys  # pyright: ignore  every layer attends to all and holds both
            values: Tensor = layer.values  # pyright: ignore
            part.update(
                keys[:, :, :length].expand(batch, -1, -1, -1), values[:, :, :length].expand(batch, -1, -1, -1), index
            )
        return part


def has_static_rotation(model: PreTrainedModel) -> bool:
    """Whether positions turn alike at every length; dynamic NTK and LongRoPE switch with the length of the input."""
    block = getattr(model.config.get_text_config(), "rope_parameters", None) or {}
    blocks = [value for value in block.values() if isinstance(value, dict)] or [block]
    return not any(b.get("rope_type") in ("dynamic", "longrope") for b in blocks)


def shares_prefixes(model: PreTrainedModel) -> bool:
    """Whether a token's state depends on the tokens before it alone, at any length: static rotation, full attention."""
    config = model.config.get_text_config()
    layer_types = set(getattr(config, "layer_types", None) or ["full_attention"])
    sliding = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    return has_static_rotation(model) and layer_types == {"full_attention"} and not sliding


def _losses(logits_BRV: Tensor, targets_BR: Tensor) -> Tensor:
    logits_BRV = logits_BRV.float()
    return logits_BRV.logsumexp(-1) - logits_BRV.gather(-1, targets_BR[..., None])[..., 0]
