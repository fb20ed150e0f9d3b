"""Perplexity: the truth first, then against a loop that does nothing clever."""

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ropewalk.checkpoint.folder import open_checkpoint
from ropewalk.errors import RecordError
from ropewalk.evals.documents import ScoredDocument
from ropewalk.evals.losses import LossTable
from ropewalk.evals.perplexity import PerplexityPlan, clustered_error, measured_perplexity, perplexity_result
from ropewalk.evals.pieces import Pieces
from ropewalk.evals.windows import DEFINITIONS, Need, sampled, sliding_targets, union, window_passes
from ropewalk.extension import extend
from ropewalk.model.load import load_model
from ropewalk.model.scoring import Scorer, has_static_rotation
from ropewalk.progress import silent
from ropewalk.record import EvalResult
from tests.conftest import make_llama
from tests.model.test_layers import random_model
from tests.model.test_scoring import ARCHITECTURES

TOTALS = st.integers(2, 400)
STRIDES = st.sampled_from([1, 7, 16, 64])
LENGTHS = st.lists(st.integers(2, 200), min_size=1, max_size=4, unique=True)
ALL = tuple(name for name in DEFINITIONS if name != "sliding")


class Known:
    """A scorer whose loss for a target is the target's token id / 100: the truth is known for every window."""

    is_static = True
    batch_tokens = 512

    def target_losses(self, windows: list[list[int]], targets: list[range]) -> torch.Tensor:
        window = torch.tensor(windows)
        return torch.cat([window[:, r.start : r.stop] for r in targets], dim=1).float() / 100


def measured(scorer, tokens: list[list[int]], folder: Path, **plan) -> dict[tuple[str, int], EvalResult]:
    documents = [ScoredDocument(str(n), one) for n, one in enumerate(tokens)]
    table = LossTable(folder, Pieces(folder / "pieces.jsonl"))
    rows = measured_perplexity(scorer, documents, PerplexityPlan(**plan), table, 64, silent)
    return {
        ("sliding" if row.name == "perplexity" else row.name.removeprefix("perplexity-"), row.length): row
        for row in rows
    }


def naive_targets(total: int, length: int, stride: int) -> list[tuple[int, int]]:
    """(begin, target) of every scored token, by the protocol's own words."""
    scored, end, begin = [], 0, 0
    while end < total:
        previous, end = end, min(begin + length, total)
        scored += [(begin, t) for t in range(max(previous, begin + 1), end)]
        begin += stride
    return scored


def naive_windows(name: str, total: int, length: int, stride: int) -> list[list[tuple[int, int]]]:
    """The windows of a definition, each as its scored (begin, target): written from the definition's own words."""
    if name in ("sliding", "window-means"):
        pairs = naive_targets(total, length, stride)
        return [[p for p in pairs if p[0] == begin] for begin in sorted({b for b, _ in pairs})]
    if name == "truncated":
        return [[(0, t) for t in range(1, min(length, total))]]
    if name == "disjoint":
        return [w for b in range(0, total, length) if (w := [(b, t) for t in range(b + 1, min(b + length, total))])]
    begins = [b for b in range(0, total, stride) if b + length <= total] or [0]
    return [[(b, t) for t in range(b + 1, min(b + length, total))] for b in begins]


@given(TOTALS, st.integers(2, 200), STRIDES)
def test_windows_are_those_of_the_protocol(total: int, length: int, stride: int) -> None:
    step = min(stride, length)
    ours = [(b, t) for b in range(0, total, step) for t in sliding_targets(b, length, step, total)]
    assert ours == naive_targets(total, length, step)


@given(TOTALS, st.integers(2, 200), STRIDES)
def test_each_token_is_scored_once(total: int, length: int, stride: int) -> None:
    step = min(stride, length)
    targets = [t for b in range(0, total, step) for t in sliding_targets(b, length, step, total)]
    assert len(targets) == len(set(targets))
    if length > step:
        assert targets == list(range(1, total))
    else:  # the first token of each window has no context
        assert targets == [t for t in range(1, total) if t % step]


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 9)), min_size=1))
def test_union_holds_the_same_numbers_in_order(pairs: list[tuple[int, int]]) -> None:
    merged = union([range(start, start + size) for start, size in pairs])
    numbers = [n for r in merged for n in r]
    assert numbers == sorted({n for start, size in pairs for n in range(start, start + size)})


@settings(max_examples=40)
@given(st.lists(TOTALS, min_size=1, max_size=3), LENGTHS, STRIDES)
def test_known_losses_give_the_known_perplexity_by_every_definition(totals, lengths, stride) -> None:
    import tempfile

    tokens = [[(17 * i + 5 * n) % 250 for i in range(total)] for n, total in enumerate(totals)]
    with tempfile.TemporaryDirectory() as folder:
        rows = measured(Known(), tokens, Path(folder), lengths=tuple(lengths), stride=stride, also=ALL)
    for name, definition in DEFINITIONS.items():
        for length in lengths:
            windows = [
                [tokens[n][t] / 100 for _, t in window]
                for n, total in enumerate(totals)
                for window in naive_windows(name, total, length, min(stride, length))
            ]
            if definition.by_window:
                truth = sum(sum(w) / len(w) for w in windows) / len(windows)
            else:
                truth = sum(map(sum, windows)) / sum(map(len, windows))
            row = rows[(name, length)]
            assert row.count == sum(map(len, windows))
            assert math.isclose(row.details["loss"], truth, rel_tol=1e-5, abs_tol=1e-6)


@given(st.lists(TOTALS, min_size=1, max_size=3), LENGTHS, STRIDES, st.integers(64, 600))
def test_passes_cover_what_is_due_and_no_more(totals, lengths, stride, batch_tokens) -> None:
    needs = [Need(definition, length, stride) for definition in DEFINITIONS.values() for length in lengths]
    for number, total in enumerate(totals):
        passes = window_passes(number, total, needs, batch_tokens)
        begins = [begin for p in passes for begin in p.begins]
        assert len(begins) == len(set(begins))
        for p in passes:
            assert len(p.begins) == 1 or len(p.begins) * p.size <= batch_tokens
            for begin in p.begins:
                due = {t for need in needs for t in need.targets(number, begin, total)}
                assert {begin + t for r in p.targets for t in r} == due and p.size == max(due) + 1 - begin


def test_losses_by_position_are_those_of_first_windows(tmp_path: Path) -> None:
    tokens = [[i % 250 for i in range(200)], [7] * 90]
    rows = measured(Known(), tokens, tmp_path, lengths=(128, 64), stride=64)
    by_position = {length: row for (name, length), row in rows.items() if name == "loss-by-position"}
    assert sorted(by_position) == [32, 45, 64, 91, 128]
    for stop, row in by_position.items():
        start = row.details["from"]
        truth = [one[t] / 100 for one in tokens for t in range(start, min(stop, len(one)))]
        assert row.count == len(truth) and row.value == pytest.approx(sum(truth) / len(truth))
    assert by_position[128].stderr is None and by_position[91].stderr is not None


@pytest.mark.parametrize("name", DEFINITIONS)
def test_a_sample_of_windows_estimates_the_whole_without_bias(tmp_path: Path, name: str) -> None:
    """Many samples: their mean is the exact figure within its error, and the error they state is their spread."""
    tokens = [[(13 * i * i + 7 * i) % 250 for i in range(900)], [(i // 3) % 250 for i in range(400)]]
    also = () if name == "sliding" else (name,)
    exact = measured(Known(), tokens, tmp_path, lengths=(128,), stride=32, also=also)[(name, 128)].details["loss"]
    estimates, errors = [], []
    for seed in range(60):
        (folder := tmp_path / str(seed)).mkdir()
        plan = {"lengths": (128,), "stride": 32, "also": also, "windows_sampled": 20, "seed": seed}
        row = measured(Known(), tokens, folder, **plan)[(name, 128)]
        assert row.value is not None and row.stderr is not None
        estimates.append(row.details["loss"])
        errors.append(row.stderr / row.value)
    spread = math.sqrt(sum((e - exact) ** 2 for e in estimates) / 60)
    assert abs(sum(estimates) / 60 - exact) < 3 * spread / math.sqrt(60)
    assert 0.7 < (sum(errors) / 60) / spread < 1.4


def test_a_sample_draws_windows_by_the_tokens_they_score() -> None:
    need = sampled(Need(DEFINITIONS["sliding"], 128, 32), [480], 4000, seed=0)
    assert need.sample is not None
    first = sum(begin == 0 for _, begin in need.sample) / 4000
    assert first == pytest.approx(127 / 479, abs=0.03)


def naive_losses(model: torch.nn.Module, tokens: list[int], pairs: list[tuple[int, int]], length: int) -> list[float]:
    losses = []
    for begin in sorted({b for b, _ in pairs}):
        window = torch.tensor([tokens[begin : begin + length]])
        with torch.inference_mode():
            model(window[:, :1])  # dynamic rotation forgets longer inputs
            logs = model(window).logits.float().log_softmax(-1)
        losses += [-logs[0, target - begin - 1, tokens[target]].item() for b, target in pairs if b == begin]
    return losses


def nested_equals_naive(folder: Path, out: Path, lengths: tuple[int, ...] = (16, 32, 64, 128, 200)) -> None:
    """Every token's loss, not only their mean: 1e-5 nats, which is float32 in another order."""
    loaded = load_model(open_checkpoint(folder))
    tokens = [0, *((7 * i * i + i) % 290 for i in range(330))]
    out.mkdir()
    rows = measured(Scorer(loaded.model), [tokens], out, lengths=lengths, stride=32, also=("disjoint",))
    table = LossTable(out, Pieces(out / "pieces.jsonl"))
    held = {}
    for name in table.names():
        for begin, losses in table.windows(name):
            held |= {(begin, t): loss for r, part in losses.items() for t, loss in zip(r, part, strict=True)}
    for definition in ("sliding", "disjoint"):
        for length in lengths:
            pairs = [p for w in naive_windows(definition, len(tokens), length, min(32, length)) for p in w]
            truth = naive_losses(loaded.model, tokens, pairs, length)
            if has_static_rotation(loaded.model):
                assert [held[p] for p in sorted(pairs)] == pytest.approx(truth, abs=1e-5 * max(1.0, max(truth)))
            assert rows[(definition, length)].details["loss"] == pytest.approx(sum(truth) / len(truth), abs=1e-5)


def test_one_pass_for_all_windows_equals_a_pass_a_window(tiny_llama: Path, tmp_path: Path) -> None:
    nested_equals_naive(tiny_llama, tmp_path / "plain")
    extend(tiny_llama, to=200, out=tmp_path / "longer", method="yarn")
    nested_equals_naive(tmp_path / "longer", tmp_path / "yarn")


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, {"abs": 1e-5}), (torch.float32, {"rel": 1e-5})], ids=str)
@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name != "capped"])
def test_every_token_s_loss_equals_the_plain_loop_s(
    name: str, dtype: torch.dtype, bound: dict[str, float], tmp_path: Path
) -> None:
    """Five architectures, the sliding window's through its own forward. Rotations and losses are float32 all the
    same, so 1e-5 nats it is; computed in float32 throughout, a loss of six nats is off by up to two in 1e5 on some processors."""
    model = random_model(ARCHITECTURES[name]).to(dtype)
    tokens = [(7 * i * i + i) % 90 for i in range(150)]
    lengths = (16, 32, 64, 100)
    measured(Scorer(model, 256), [tokens], tmp_path, lengths=lengths, stride=16)
    table = LossTable(tmp_path, Pieces(tmp_path / "pieces.jsonl"))
    held = {
        (begin, t): loss
        for part in table.names()
        for begin, losses in table.windows(part)
        for r, row in losses.items()
        for t, loss in zip(r, row, strict=True)
    }
    for length in lengths:
        pairs = naive_targets(len(tokens), length, 16)
        assert [held[p] for p in sorted(pairs)] == pytest.approx(naive_losses(model, tokens, pairs, length), **bound)


def test_a_table_that_was_cut_is_not_built_upon(tmp_path: Path) -> None:
    measured(Known(), [[1] * 300], tmp_path, lengths=(64,), stride=64)
    whole = (tmp_path / "losses.f32").read_bytes()
    (tmp_path / "losses.f32").write_bytes(whole + b"half a pass")
    LossTable(tmp_path, Pieces(tmp_path / "pieces.jsonl"))
    assert (tmp_path / "losses.f32").read_bytes() == whole
    (tmp_path / "losses.f32").write_bytes(whole[:-8])
    with pytest.raises(RecordError, match="shorter than"):
        LossTable(tmp_path, Pieces(tmp_path / "pieces.jsonl"))


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
    nested_equals_naive(tmp_path / "gemma", tmp_path / "out")


def test_dynamic_rotation_is_not_shared(tmp_path: Path, tiny_tokenizer: Path) -> None:
    """Each window length has passes of its own, and still equals the plain loop."""
    folder = make_llama(
        tmp_path / "dynamic", tiny_tokenizer, rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}
    )
    nested_equals_naive(folder, tmp_path / "out")


def test_result_is_token_weighted_with_an_error_over_documents() -> None:
    row = perplexity_result(Need(DEFINITIONS["sliding"], 256, 256), [(10.0, 10), (90.0, 30)], [11, 31], 128, 40)
    assert row.value == pytest.approx(math.exp(100 / 40))
    assert row.details["beyond_window"] and row.details["documents_shorter_than_window"] == 2
    # residuals -15 and +15 around the mean 2.5: sqrt(450 * 2 / 1) / 40
    assert row.stderr == pytest.approx(row.value * math.sqrt(900) / 40)


def test_one_document_has_no_error_and_says_why() -> None:
    row = perplexity_result(Need(DEFINITIONS["sliding"], 256, 256), [(10.0, 10)], [11], 512, 10)
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
        Scorer(loaded.model).target_losses([[0, 1, 2]], [range(1, 3)])
