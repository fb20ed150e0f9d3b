"""Several ranks do what one process does: the same losses, weights and rows, whatever is shared out and how."""

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from transformers import Gemma2Config, Gemma2ForCausalLM

from ropewalk.evals.evaluate import evaluate
from ropewalk.extension import extend
from ropewalk.record import read_run
from ropewalk.train.tune import tune
from tests.conftest import TEXT, make_llama
from tests.ranks.equality import ALL_LAYOUTS, CASES, EVALUATED, FEW, QUICK, QUICK_EVALUATED, SHARED, TUNED
from tests.ranks.launching import launched

LAYOUTS = ("2 x 1", "1 x 2", "2 x 2")
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Path) -> Path:
    """What four processes left. All that needs them is launched once."""
    folder = tmp_path_factory.mktemp("ranks")
    make_llama(folder / "model", tiny_tokenizer, **HEADS)
    make_llama(folder / "twelve", tiny_tokenizer, num_attention_heads=12, num_key_value_heads=6)
    extend(folder / "model", to=128, out=folder / "long")
    stock = Gemma2ForCausalLM(
        Gemma2Config(
            vocab_size=300,
            hidden_size=24,
            intermediate_size=40,
            num_hidden_layers=2,
            head_dim=8,
            max_position_embeddings=128,
            sliding_window=16,
            **HEADS,
        )
    )
    stock.save_pretrained(folder / "stock")
    for file in tiny_tokenizer.iterdir():
        (folder / "stock" / file.name).write_bytes(file.read_bytes())
    (folder / "text.txt").write_text(TEXT)
    launched(4, "-m", "tests.ranks.equality", str(folder))
    return folder


def worst(folder: Path, ranks: int) -> dict[str, dict[str, float]]:
    """Of each case and layout, how far the worst rank came from one process."""
    found: dict[str, dict[str, float]] = {}
    for rank in range(ranks):
        for key, values in json.loads((folder / f"apart-{rank}.json").read_text()).items():
            found[key] = {name: max(value, found.get(key, values)[name]) for name, value in values.items()}
    return found


@pytest.fixture(scope="module")
def apart(folder: Path) -> dict[str, dict[str, float]]:
    return worst(folder, 4)


def assert_equal(apart: dict[str, dict[str, float]], case: str, layouts: tuple[str, ...]) -> None:
    """In float64, where another order of the same sums is all that may differ; and training moved the weights."""
    keys = [key for key in apart if key.rpartition(", ")[0] == case]
    assert {key.rpartition(", ")[2] for key in keys} >= set(layouts)
    for key in keys:
        print(f"{key}: losses apart by {apart[key]['loss']:.1e}, weights by {apart[key]['weights']:.1e}")
        assert apart[key]["loss"] < 1e-10, key
        assert apart[key]["weights"] < 1e-8, key
        assert apart[key]["moved"] > 1e-3, key


@pytest.mark.model
def test_two_ranks_train_what_one_process_trains(tmp_path: Path, tiny_tokenizer: Path) -> None:
    """Adapters on packed rows of several widths, over several passes: the case with most in it. `make test-ranks` has all."""
    make_llama(tmp_path / "model", tiny_tokenizer, **HEADS)
    launched(2, "-m", "tests.ranks.equality", str(tmp_path))
    assert_equal(worst(tmp_path, 2), QUICK, LAYOUTS[:2])
    assert_same_rows(tmp_path / "shared-2", tmp_path / "one", QUICK_EVALUATED, ranks=2)


def assert_same_rows(shared: Path, one: Path, asked: dict[str, Any], ranks: int) -> None:
    """In float64 losses of shared texts are those of one process, kept in float32; every key that is found is the same."""
    evaluate("pilot", out=one, **asked)
    ours, theirs = (read_run(out).results for out in (shared, one))
    assert [(row.name, row.length, row.metric, row.count) for row in ours] == [
        (row.name, row.length, row.metric, row.count) for row in theirs
    ]
    for mine, true in zip(ours, theirs, strict=True):
        assert mine.value == pytest.approx(true.value, rel=1e-6), mine
    assert read_run(shared).resolved["layout"] == {"data": ranks // 2, "sequence": 2}
    written = [path.read_text().count("\n") for path in shared.glob("pieces*.jsonl")]
    assert len(written) == ranks // 2  # of the ranks that share a text one writes
    assert sum(written) == (one / "pieces.jsonl").read_text().count("\n")


@pytest.mark.ranks
@pytest.mark.parametrize("case", CASES)
def test_ranks_train_what_one_process_trains(apart: dict[str, dict[str, float]], case: str) -> None:
    assert_equal(apart, case, (*LAYOUTS, "4 x 1", "1 x 4") if case in ALL_LAYOUTS else LAYOUTS)


@pytest.mark.ranks
def test_a_save_is_read_by_any_number_of_ranks(apart: dict[str, dict[str, float]]) -> None:
    """Weights and moments to the last bit."""
    ways = [f"{adapter}, {way}" for adapter in ("full", "lora") for way in ("four to one", "one to four")]
    assert apart["carried"] == dict.fromkeys(ways, 0.0)


@pytest.mark.ranks
def test_numbers_that_are_none_on_one_rank_stop_all_of_them(folder: Path) -> None:
    """The last rank alone holds them: every rank names the same place, and the save before stays the last."""
    told = [json.loads((folder / f"said-{rank}.json").read_text()) for rank in range(4)]
    assert all(said == told[0] for said in told)
    weight, made = told[0]
    assert "the weight model.layers.1.self_attn.k_proj.weight is no longer finite after step 2" in weight
    assert "the loss is nan" in made and "at step 2" in made
    assert "the first number that is not finite is in what model.layers.1.post_attention_layernorm gives" in made
    assert all("step-000001" in said for said in told[0])


@pytest.mark.ranks
def test_four_ranks_leave_the_checkpoint_that_one_process_leaves(folder: Path, tmp_path: Path) -> None:
    """Byte for byte: in float64 the sums agree to 1e-14, and the weights are stored in float32."""
    tune(folder / "long", out=tmp_path / "one", **TUNED | {"data": [folder / "text.txt"]})
    ranked = folder / "tuned-4"
    assert {p.name for p in ranked.iterdir()} == {p.name for p in (tmp_path / "one").iterdir()}
    for file in ("model.safetensors", "config.json", "README.md", "trained_on.json"):
        assert (ranked / file).read_bytes() == (tmp_path / "one" / file).read_bytes(), file
    assert read_run(ranked).resolved["layout"] == {"data": 2, "sequence": 2}
    assert len((ranked / "log.jsonl").read_text().splitlines()) == TUNED["steps"]


@pytest.mark.ranks
@pytest.mark.parametrize(("name", "more"), [("stock-4", {}), ("stock-few", FEW)])
def test_a_family_without_a_lean_engine_is_trained_by_ranks_too(
    folder: Path, tmp_path: Path, name: str, more: dict[str, Any]
) -> None:
    """Gemma 2 by its stock forward, whose loss is float32: gradients differ by its rounding. With fewer sequences than
    ranks too, where no layout was asked for: some have nothing to do, for they cannot share one."""
    tune(folder / "stock", out=tmp_path / "one", **TUNED | more | {"data": [folder / "text.txt"]})
    ours, theirs = (load_file(out / "model.safetensors") for out in (folder / name, tmp_path / "one"))
    before = load_file(folder / "stock" / "model.safetensors")
    assert ours.keys() == theirs.keys() == before.keys()  # the head is the embedding, and stored once
    for tensor in ours:
        moved = (theirs[tensor] - before[tensor]).norm()
        assert (ours[tensor] - theirs[tensor]).norm() <= 1e-2 * moved, tensor
    resolved = read_run(folder / name).resolved
    assert "stock forward pass" in resolved["engine"] and resolved["layout"] == {"data": 4, "sequence": 1}


@pytest.mark.ranks
def test_ranks_that_share_each_text_find_what_one_process_finds(folder: Path, tmp_path: Path) -> None:
    assert_same_rows(folder / "shared-4", tmp_path / "one", EVALUATED | SHARED, ranks=4)


@pytest.mark.ranks
def test_evaluation_on_four_ranks_gives_the_rows_of_one_process(folder: Path, tmp_path: Path) -> None:
    evaluate("pilot", out=tmp_path / "one", **EVALUATED)
    out = folder / "evaluated-4"
    rows = [json.dumps(json.loads((path / "run.json").read_text())["results"]) for path in (out, tmp_path / "one")]
    assert rows[0] == rows[1]
    shared = [path.read_text().count("\n") for path in out.glob("pieces*.jsonl")]
    whole = (tmp_path / "one" / "pieces.jsonl").read_text().count("\n")
    assert len(shared) == 4 and sum(shared) == whole and min(shared) > whole / 8  # each its part, and none twice
