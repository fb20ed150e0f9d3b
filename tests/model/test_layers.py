"""The lean forward pass equals the stock one, and is not used where it would not."""

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    MistralConfig,
    Olmo2Config,
    Qwen2Config,
    Qwen3Config,
    SmolLM3Config,
)

from ropewalk.model.layers import LeanForward, _joined, attend, merged
from ropewalk.model.scoring import Scorer
from ropewalk.model.view import layer_view

SIDES = {
    "vocab_size": 90, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64, "initializer_range": 0.3,
}  # fmt: skip
CONFIGS = [
    LlamaConfig(**SIDES),
    LlamaConfig(**SIDES, attention_bias=True, mlp_bias=True, tie_word_embeddings=True),
    LlamaConfig(
        **SIDES,
        rope_parameters={
            "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "rope_theta": 1e4,
        },
    ),
    MistralConfig(**SIDES, sliding_window=None),
    Qwen2Config(**{k: v for k, v in SIDES.items() if k != "head_dim"}),  # biases on queries, keys and values
    Qwen3Config(**SIDES),  # norms on queries and keys
    SmolLM3Config(**SIDES, no_rope_layers=[1, 0, 1], pad_token_id=0),  # one layer is not rotated
    Olmo2Config(**{k: v for k, v in SIDES.items() if k != "head_dim"}, pad_token_id=0),  # norms after, not before
]  # fmt: skip


def random_model(config) -> torch.nn.Module:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:  # norms and biases begin as ones and zeros, which would hide a mistake
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model


WANTED = [[range(30)], [range(29, 30)], [range(2, 5), range(20, 30)], [range(3, 4), range(7, 19)]]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c.model_type)
@pytest.mark.parametrize("wanted", WANTED, ids=str)
@pytest.mark.parametrize("shared", [0, 11])
def test_rows_equal_the_stock_forward(config, wanted: list[range], shared: int) -> None:
    """1e-4: float32, where parts of an attention are summed apart."""
    model = random_model(config)
    view = layer_view(model)
    assert view is not None
    lean = LeanForward(model, view)
    tokens = torch.randint(0, 90, (3, shared + 30), generator=torch.Generator().manual_seed(1))
    tokens[1:, :shared] = tokens[0, :shared]
    with torch.inference_mode():
        whole = model(tokens).logits[:, [shared + row for rows in wanted for row in rows]]
        held = lean.buffer(40)
        for cut in (tokens[:1, :shared], tokens[:1, :9]) if shared else ():  # the second is cropped away again
            lean.rows(cut, [], held, keep=True)
        held.crop(shared)
        ours = model.get_output_embeddings()(lean.rows(tokens[:, shared:], wanted, held))
    torch.testing.assert_close(ours, whole, rtol=0, atol=1e-4)
    assert Scorer(model).lean is not None


def test_it_is_not_used_for_windows_that_slide_nor_for_other_families() -> None:
    from transformers import Gemma2Config

    assert Scorer(random_model(MistralConfig(**SIDES, sliding_window=8))).lean is None
    assert Scorer(random_model(Gemma2Config(**SIDES))).lean is None
    dynamic = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}
    assert Scorer(random_model(LlamaConfig(**SIDES, rope_parameters=dynamic))).lean is None


def test_it_is_not_used_where_it_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    from ropewalk.model import view

    monkeypatch.setattr(view, "rotated", lambda x, cos, sin: x)
    assert Scorer(random_model(CONFIGS[0])).lean is None


@pytest.mark.parametrize("shared", [0, 13])
@pytest.mark.parametrize("key_heads", [1, 2, 4])
def test_merged_parts_are_attention_over_their_union(shared: int, key_heads: int) -> None:
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(2, 4, 5, 8, generator=generator)
    keys, values = (torch.randn(2, key_heads, 9, 8, generator=generator) for _ in range(2))
    held = None
    if shared:
        held = tuple(torch.randn(1, key_heads, shared, 8, generator=generator) for _ in range(2))
    ours = attend(query, keys, values, held, 0.3)
    elsewhere = _joined(query, keys, values, held, 0.3)
    if held:
        keys, values = (
            torch.cat([s.expand(2, -1, -1, -1), own], 2) for s, own in zip(held, (keys, values), strict=True)
        )
    seen = torch.ones(5, 9 + shared, dtype=torch.bool).tril(4 + shared)
    keys, values = (part.repeat_interleave(4 // key_heads, dim=1) for part in (keys, values))
    theirs = torch.nn.functional.scaled_dot_product_attention(query, keys, values, attn_mask=seen, scale=0.3)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
    torch.testing.assert_close(elsewhere, theirs, rtol=0, atol=1e-6)
    assert merged([(values, torch.zeros(2, 3, 9))]) is values
