"""The body and the head of a causal model apart, so that logits exist only for the rows that are wanted."""

import torch
from torch import Tensor
from transformers import PreTrainedModel

# B batch, L length, D hidden, V vocabulary
PROBE = 8  # tokens


class BodyAndHead:
    """Hidden states first, logits of chosen rows after; checked once against the whole model.

    `is_plain` tells whether logits are the head's product with the last hidden state and nothing else. Families that
    scale or cap their logits (Cohere, Gemma 2, Granite) are not plain, and go through the stock forward. `apart` False:
    so does this one, unchecked.
    """

    def __init__(self, model: PreTrainedModel, *, apart: bool = True):
        self.model = model
        self.body = model.base_model
        self.head = model.get_output_embeddings()
        self.is_plain = apart and self._is_plain()

    @torch.no_grad()
    def _is_plain(self) -> bool:
        if self.head is None or self.body is self.model:
            return False
        device = self.head.weight.device
        tokens = torch.arange(PROBE, device=device)[None] % self.head.weight.shape[0]
        training = self.model.training
        self.model.eval()
        try:
            apart = self.head(self.body(tokens, use_cache=False).last_hidden_state)
            whole = self.model(tokens, use_cache=False).logits
        finally:
            self.model.train(training)
        return apart.shape == whole.shape and torch.allclose(apart.float(), whole.float(), rtol=1e-3, atol=1e-4)

    def hidden(self, tokens_BL: Tensor, **more) -> Tensor:
        """Last hidden states, (B, L, D)."""
        return self.body(tokens_BL, use_cache=False, **more).last_hidden_state
