"""Scores of prompts and windows equal those of the plain forward pass, whatever is shared, cut or batched."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import Gemma2Config, GPTNeoXConfig, LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config

from ropewalk.errors import DataError
from ropewalk.model.scoring import Scorer
from tests.model.test_layers import SIDES, random_model

NEOX = {k: v for k, v in SIDES.items() if k not in ("num_key_value_heads", "head_dim", "hidden_size")}
ARCHITECTURES = {
    "llama": LlamaConfig(**SIDES),
    "qwen2": Qwen2Config(**{k: v for k, v in SIDES.items() if k != "head_dim"}),
    "qwen3": Qwen3Config(**SIDES),
    "neox": GPTNeoXConfig(**NEOX, hidden_size=32, rotary_pct=0.25),
    "sliding": MistralConfig(**SIDES, sliding_window=8),
    "capped": Gemma2Config(**SIDES, final_logit_softcapping=2.0, sliding_window=8),
}  # fmt: skip


def plain(model: torch.nn.Module, prompt: list[int], count: int) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.inference_mode():
        logits = model(torch.tensor([prompt])).logits[0, -count - 1 : -1]
    targets = torch.tensor(prompt[-count:])
    return torch.nn.functional.cross_entropy(logits, targets, reduction="none"), logits.argmax(-1) == targets


def tree_of_prompts() -> tuple[list[list[int]], list[int]]:
    """Prompts that share long and short beginnings, some all but their last token, one twice, one all alone."""
    trunk = [(7 * i * i + i) % 90 for i in range(70)]
    prompts = [trunk[: 20 + 9 * n] + [n, n + 1, 5, 6, 7][: 2 + n % 4] for n in range(5)]
    prompts += [[*trunk, 1, 2], [*trunk, 1, 3], [*trunk, 1, 2], [3, 4], trunk[:40]]
    return prompts, [2, 2, 3, 1, 2, 2, 1, 2, 1, 39]


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("batch_tokens", [8, 64, 4096])
def test_prompts_equal_the_plain_forward(name: str, batch_tokens: int) -> None:
    """1e-5 nats a token and the same verdicts; passes of 8 tokens cut stretches and texts into pieces."""
    model = random_model(ARCHITECTURES[name])
    prompts, scored = tree_of_prompts()
    ours = Scorer(model, batch_tokens).prompts(prompts, scored)
    for prompt, count, one in zip(prompts, scored, ours, strict=True):
        losses, greedy = plain(model, prompt, count)
        torch.testing.assert_close(one.losses, losses, rtol=0, atol=2e-5)
        assert one.greedy.tolist() == greedy.tolist()


@pytest.mark.parametrize("batch_tokens", [256, 512, 8192])
def test_chains_side_by_side_equal_the_plain_forward(batch_tokens: int) -> None:
    """Five keys behind one task line, each before ever more filler: five lanes of the buffer, or fewer at a time."""
    model = random_model(ARCHITECTURES["llama"])
    filler = [(7 * i * i + i) % 90 for i in range(300)]
    prompts = [
        [*range(20), *[key] * 3, *filler[: 60 * grown], 5, key, 6, 7] for key in range(40, 45) for grown in range(1, 5)
    ]
    prompts += [[*range(20), *filler[:100], 9, n, 3] for n in range(3)]  # another shape, scored behind one lane again
    scored = [2, 3] * (len(prompts) // 2) + [1] * (len(prompts) % 2)
    scorer = Scorer(model, batch_tokens)
    for prompt, count, one in zip(prompts, scored, scorer.prompts(prompts, scored), strict=True):
        losses, greedy = plain(model, prompt, count)
        torch.testing.assert_close(one.losses, losses, rtol=0, atol=2e-5)
        assert one.greedy.tolist() == greedy.tolist()


@pytest.mark.parametrize("name", ["llama", "neox"])
@pytest.mark.parametrize("batch_tokens", [8, 4096])
@pytest.mark.parametrize("targets", [[range(1, 40)], [range(5, 9), range(20, 31)], [range(39, 40)]], ids=str)
def test_windows_equal_the_plain_forward(name: str, batch_tokens: int, targets: list[range]) -> None:
    model = random_model(ARCHITECTURES[name])
    window = [(11 * i * i + 3 * i) % 90 for i in range(40)]
    ours = Scorer(model, batch_tokens).target_losses([window], targets)[0]
    losses, _ = plain(model, window, 39)
    torch.testing.assert_close(ours, losses[[t - 1 for r in targets for t in r]], rtol=0, atol=2e-5)


def test_what_is_skipped_changes_no_number() -> None:
    """A run that goes on does only what is left, and its numbers are those of a run that was never stopped."""
    scorer = Scorer(random_model(ARCHITECTURES["llama"]), 64)
    prompts, scored = tree_of_prompts()
    whole = dict(scorer.each_prompt(prompts, scored))
    for left in ({0}, {3, 7}, {4, 5, 8}, {9}):
        again = dict(scorer.each_prompt(prompts, scored, skip=lambda i, left=left: i not in left))
        assert left <= set(again)
        for index in left:
            assert torch.equal(again[index].losses, whole[index].losses)
    assert not dict(scorer.each_prompt(prompts, scored, skip=lambda i: True))


MODEL = random_model(ARCHITECTURES["llama"])
SCORER = Scorer(MODEL, 512)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.integers(0, 3), min_size=2, max_size=90), min_size=1, max_size=8), st.data())
def test_any_prompts_equal_the_plain_forward(prompts: list[list[int]], data) -> None:
    scored = [data.draw(st.integers(1, len(prompt) - 1)) for prompt in prompts]
    for prompt, count, one in zip(prompts, scored, SCORER.prompts(prompts, scored), strict=True):
        torch.testing.assert_close(one.losses, plain(MODEL, prompt, count)[0], rtol=0, atol=5e-5)


def test_a_prompt_without_a_token_before_its_targets_is_refused() -> None:
    with pytest.raises(DataError, match="at least one token before"):
        SCORER.prompts([[1, 2]], [2])


def test_a_broken_layer_is_named() -> None:
    model = random_model(ARCHITECTURES["llama"])
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight[0, 0] = float("nan")
    with pytest.raises(DataError, match=r"layer 2 of 3 gives, at position 0"):
        Scorer(model).prompts([[1, 2, 3]], [1])
