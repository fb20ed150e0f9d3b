"""Perplexity: the truth first, then against a loop that does nothing clever."""

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ropewalk.checkpoint.folder import open_checkpoint
from ropewalk.evals.perplexity import (
    clustered_error,
    perplexity_result,
    score_pass,
    scored_targets,
    stride_groups,
    window_passes,
)
from ropewalk.extension import extend
from ropewalk.model.load import load_model
from ropewalk.model.scoring import Scorer
from tests.conftest import make_llama

TOTALS = st.integers(2, 400)
STRIDES = st.sampled_from([1, 7, 16, 64])
LENGTHS = st.lists(st.integers(2, 200), min_size=1, max_size=4, unique=True)


class Known:
    """A scorer whose loss for a target is the target's token id / 100: the truth is known for every window."""

    def target_losses(self, windows: list[list[int]], first: int) -> torch.Tensor:
        return torch.tensor(windows)[:, first:].float() / 100


def naive_targets(total: int, length: int, stride: int) -> list[tuple[int, int]]:
    """(begin, target) of every scored token, by the protocol's own words."""
    scored, end, begin = [], 0, 0
    while end < total:
        previous, end = end, min(begin + length, total)
        scored += [(begin, t) for t in range(max(previous, begin + 1), end)]
        begin += stride
    return scored


@given(TOTALS, st.integers(2, 200), STRIDES)
def test_windows_are_those_of_the_protocol(total: int, length: int, stride: int) -> None:
    step = min(stride, length)
    ours = [(b, t) for b in range(0, total, step) for t in scored_targets(b, length, step, total)]
    assert ours == naive_targets(total, length, step)


@given(TOTALS, st.integers(2, 200), STRIDES)
def test_each_token_is_scored_once(total: int, length: int, stride: int) -> None:
    step = min(stride, length)
    targets = [t for b in range(0, total, step) for t in scored_targets(b, length, step, total)]
    assert len(targets) == len(set(targets))
    if length > step:
        assert targets == list(range(1, total))
    else:  # the first token of each window has no context
        assert targets == [t for t in range(1, total) if t % step]


@given(TOTALS, LENGTHS, STRIDES)
def test_known_losses_give_the_known_perplexity(total: int, lengths: list[int], stride: int) -> None:
    tokens = [(17 * i) % 250 for i in range(total)]
    for group in stride_groups(lengths, stride, nested=True):
        passes = window_passes(total, group, stride)
        for length in group:
            parts = [score_pass(Known(), tokens, p, group, stride).get(str(length), (0.0, 0)) for p in passes]  # type: ignore[arg-type]
            truth = [tokens[t] / 100 for _, t in naive_targets(total, length, min(stride, length))]
            assert sum(count for _, count in parts) == len(truth)
            assert math.isclose(sum(loss for loss, _ in parts), sum(truth), rel_tol=1e-5, abs_tol=1e-6)


def naive_losses(model: torch.nn.Module, tokens: list[int], length: int, stride: int) -> list[float]:
    losses = []
    for begin in sorted({b for b, _ in naive_targets(len(tokens), length, stride)}):
        window = torch.tensor([tokens[begin : begin + length]])
        with torch.inference_mode():
            logs = model(window).logits.float().log_softmax(-1)
        for target in (t for b, t in naive_targets(len(tokens), length, stride) if b == begin):
            losses.append(-logs[0, target - begin - 1, tokens[target]].item())
    return losses


def nested_equals_naive(folder: Path, lengths: tuple[int, ...] = (16, 32, 64, 128, 200)) -> None:
    loaded = load_model(open_checkpoint(folder))
    scorer, tokens = Scorer(loaded.model), [0, *((7 * i * i + i) % 290 for i in range(330))]
    for group in stride_groups(lengths, 32, nested=True):
        passes = window_passes(len(tokens), group, 32)
        for length in group:
            parts = [score_pass(scorer, tokens, p, group, 32).get(str(length), (0.0, 0)) for p in passes]
            truth = naive_losses(loaded.model, tokens, length, min(32, length))
            assert sum(count for _, count in parts) == len(truth)
            assert sum(loss for loss, _ in parts) / len(truth) == pytest.approx(sum(truth) / len(truth), abs=1e-5)


def test_one_pass_for_all_windows_equals_a_pass_a_window(tiny_llama: Path, tmp_path: Path) -> None:
    """1e-5 nats: float32 sums in another order."""
    nested_equals_naive(tiny_llama)
    extend(tiny_llama, to=200, out=tmp_path / "yarn", method="yarn")
    nested_equals_naive(tmp_path / "yarn")


def test_a_family_that_caps_its_logits_goes_through_its_own_forward(tmp_path: Path, tiny_tokenizer: Path) -> None:
    import shutil

    from transformers import Gemma2Config, Gemma2ForCausalLM

    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=300, hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=3,
        num_key_value_heads=1, head_dim=8, max_position_embeddings=64, initializer_range=0.4, sliding_window=4096,
        final_logit_softcapping=2.0,
    )  # fmt: skip
    Gemma2ForCausalLM(config).save_pretrained(tmp_path / "gemma")
    for file in tiny_tokenizer.iterdir():
        shutil.copyfile(file, tmp_path / "gemma" / file.name)
    assert not Scorer(load_model(open_checkpoint(tmp_path / "gemma")).model).parts.is_plain
    nested_equals_naive(tmp_path / "gemma")


def test_dynamic_rotation_is_not_shared(tmp_path: Path, tiny_tokenizer: Path) -> None:
    from ropewalk.model.scoring import has_static_rotation

    folder = make_llama(
        tmp_path / "dynamic", tiny_tokenizer, rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}
    )
    assert not has_static_rotation(load_model(open_checkpoint(folder)).model)
    assert stride_groups((256, 512), 256, nested=False) == [(512,), (256,)]


def test_result_is_token_weighted_with_an_error_over_documents() -> None:
    row = perplexity_result(256, 256, [(10.0, 10), (90.0, 30)], [11, 31], 128)
    assert row.value == pytest.approx(math.exp(100 / 40))
    assert row.details["beyond_window"] and row.details["documents_shorter_than_window"] == 2
    # residuals -15 and +15 around the mean 2.5: sqrt(450 * 2 / 1) / 40
    assert row.stderr == pytest.approx(row.value * math.sqrt(900) / 40)


def test_one_document_has_no_error_and_says_why() -> None:
    row = perplexity_result(256, 256, [(10.0, 10)], [11], 512)
    assert row.stderr is None and "one document" in row.details["stderr_reason"]


def test_clustered_error_covers_the_truth() -> None:
    """Documents whose means vary: the interval of two errors holds the true mean about 19 times in 20."""
    generator = torch.Generator().manual_seed(0)
    held = 0
    for _ in range(400):
        means = 3 + 0.5 * torch.randn(12, generator=generator)
        sums = [(float(mean) * 100, 100) for mean in means]
        held += abs(sum(s for s, _ in sums) / 1200 - 3) < 2 * (clustered_error(sums) or 0)
    assert 0.88 < held / 400 < 0.98


def test_a_loss_that_is_not_finite_stops(tiny_llama: Path) -> None:
    from ropewalk.errors import DataError

    loaded = load_model(open_checkpoint(tiny_llama))
    with torch.no_grad():
        loaded.model.model.norm.weight[0] = float("nan")
    with pytest.raises(DataError, match="not a finite number"):
        Scorer(loaded.model).target_losses([[0, 1, 2]], 1)
