"""Learned positions: a resampled table against stock transformers, the file that holds it, and what is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, safe_open, save_file
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, OPTConfig, OPTForCausalLM

from ropewalk.checkpoint.card import CARD
from ropewalk.checkpoint.folder import open_checkpoint
from ropewalk.checkpoint.position_table import resampled
from ropewalk.checkpoint.table_writing import write_stretched
from ropewalk.cli import app
from ropewalk.errors import CheckpointError, DataError, RopeError
from ropewalk.evals.evaluate import evaluate
from ropewalk.extension import extend, planned_extension
from ropewalk.inspection import inspect
from ropewalk.model.load import load_model
from ropewalk.record import read_run
from ropewalk.train.tune import tune
from tests.checkpoint.test_extension import digests
from tests.conftest import config_of

WINDOW = 40
TABLES = {"gpt2": "wpe.weight", "opt": "embed_positions.weight"}


def make(model_type: str, folder: Path, tokenizer: Path, *, dtype: torch.dtype = torch.float32, **saving) -> Path:
    """A random model with a learned table of 40 positions, saved as transformers saves it."""
    torch.manual_seed(0)
    if model_type == "gpt2":
        config = GPT2Config(
            vocab_size=300, n_positions=WINDOW, n_embd=24, n_layer=2, n_head=3, initializer_range=0.2, bos_token_id=0,
            eos_token_id=1,
        )  # fmt: skip
        model = GPT2LMHeadModel(config)
    else:
        config = OPTConfig(
            vocab_size=300, max_position_embeddings=WINDOW, hidden_size=24, ffn_dim=40, num_hidden_layers=2,
            num_attention_heads=3, word_embed_proj_dim=24, init_std=0.2, bos_token_id=0, eos_token_id=1, pad_token_id=1,
        )  # fmt: skip
        model = OPTForCausalLM(config)
    model.to(dtype).save_pretrained(folder, **saving)
    for file in tokenizer.iterdir():
        shutil.copyfile(file, folder / file.name)
    return folder


@pytest.fixture(scope="module", params=TABLES)
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Path) -> Path:
    return make(request.param, tmp_path_factory.mktemp("tables") / request.param, tiny_tokenizer)


def table_in(model: torch.nn.Module) -> torch.nn.Embedding:
    ends = tuple(name.removesuffix(".weight") for name in TABLES.values())
    return next(module for name, module in model.named_modules() if name.endswith(ends))


def by_hand(rows: torch.Tensor, target: int, offset: int) -> torch.Tensor:
    """The longer table, a position at a time: at i L / L' of the old one, the last row where there is no next one."""
    old = rows[offset:].double()
    new = [rows[k].double() for k in range(offset)]
    for i in range(target):
        at = i * len(old) / target
        low = int(at)
        high = min(low + 1, len(old) - 1)
        new.append(old[low] + (at - low) * (old[high] - old[low]))
    return torch.stack(new)


@pytest.mark.parametrize("target", [160, 70])
def test_stock_transformers_computes_what_a_table_resampled_by_hand_computes(
    base: Path, tmp_path: Path, target: int
) -> None:
    before = digests(base)
    extend(base, to=target, out=tmp_path / "long", method="interpolate-table")
    offset = 2 if "opt" in base.name else 0
    longer = AutoModelForCausalLM.from_pretrained(tmp_path / "long", dtype=torch.float32)
    source = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    expected = by_hand(table_in(source).weight.detach(), target, offset).float()
    assert torch.allclose(table_in(longer).weight, expected, rtol=0, atol=1e-7)  # both were rounded to float32 once
    key = "max_position_embeddings" if offset else "n_positions"
    assert config_of(tmp_path / "long")[key] == target and longer.config.max_position_embeddings == target
    table_in(source).weight = torch.nn.Parameter(expected)
    tokens = torch.randint(2, 300, (2, target), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.allclose(longer(tokens).logits, source(tokens).logits, rtol=0, atol=1e-5)
    assert digests(base) == before


def test_rows_that_fall_on_old_positions_are_those_to_the_last_bit(base: Path, tmp_path: Path) -> None:
    """With a stretch of 4 every fourth row; OPT's two rows before position 0 stay where they are."""
    extend(base, to=4 * WINDOW, out=tmp_path / "long", method="interpolate-table")
    old, new = (table_in(AutoModelForCausalLM.from_pretrained(folder)).weight for folder in (base, tmp_path / "long"))
    offset = len(old) - WINDOW
    assert torch.equal(new[offset::4], old[offset:]) and torch.equal(new[:offset], old[:offset])
    assert torch.equal(new[-3:], old[-1:].expand(3, -1))
    between = (old[offset].double() * 3 + old[offset + 1].double()) / 4
    assert torch.allclose(new[offset + 1].double(), between, atol=1e-7)


def test_only_the_file_with_the_table_is_new(tmp_path: Path, tiny_tokenizer: Path) -> None:
    base = make("gpt2", tmp_path / "base", tiny_tokenizer, max_shard_size="30KB")
    before, index = digests(base), json.loads((base / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 2
    extend(base, to=100, out=tmp_path / "long", method="interpolate-table")
    holder = index["weight_map"]["transformer.wpe.weight"]
    for name in set(index["weight_map"].values()):
        assert (tmp_path / "long" / name).samefile(base / name) == (name != holder), name
    old, new = load_file(base / holder), load_file(tmp_path / "long" / holder)
    assert list(old) == list(new) and len(new["transformer.wpe.weight"]) == 100
    for name in set(old) - {"transformer.wpe.weight"}:
        assert torch.equal(old[name], new[name])
    with safe_open(base / holder, "pt") as was, safe_open(tmp_path / "long" / holder, "pt") as now:
        assert was.metadata() == now.metadata()
    grown = json.loads((tmp_path / "long" / "model.safetensors.index.json").read_text())
    assert grown["weight_map"] == index["weight_map"]
    assert grown["metadata"]["total_size"] - index["metadata"]["total_size"] == 60 * 24 * 4
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "long").config.n_positions == 100
    assert digests(base) == before


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_a_table_keeps_its_number_format_and_is_rounded_once(tmp_path: Path, dtype: torch.dtype) -> None:
    from ropewalk.checkpoint.position_table import LearnedTable, table_of

    random = torch.randn(10, 7, generator=torch.Generator().manual_seed(1)).to(dtype)
    around = {"a": torch.arange(5), "wpe.weight": random, "z": torch.randn(3)}
    save_file(around, tmp_path / "old.safetensors", metadata={"format": "pt"})
    table = table_of({"model_type": "gpt2", "n_positions": 10}, "here")
    assert table is not None
    longer = LearnedTable(table.window.at(23), table.kind)
    write_stretched(tmp_path / "old.safetensors", tmp_path / "new.safetensors", "wpe.weight", longer)
    new = load_file(tmp_path / "new.safetensors")
    assert torch.equal(new["wpe.weight"], torch.from_numpy(resampled(random.double().numpy(), 23)).to(dtype))
    assert torch.equal(new["a"], around["a"]) and torch.equal(new["z"], around["z"])
    wrong = LearnedTable(table.window.__class__(11, 23), table.kind)
    with pytest.raises(CheckpointError, match="11 rows of floating"):
        write_stretched(tmp_path / "old.safetensors", tmp_path / "none.safetensors", "wpe.weight", wrong)
    assert not (tmp_path / "none.safetensors").exists()


def test_a_straight_table_stays_straight_and_holds_at_its_end() -> None:
    """Not drawn out to the ends: that would move position 1 of a stretched window to another place than 1 / stretch."""
    rows = np.arange(12.0)[:, None] * [[1.0, -2.0]]
    new = resampled(rows, 30)
    assert new[:, 0] == pytest.approx(np.minimum(np.arange(30) * 12 / 30, 11)) and new[:, 1] == pytest.approx(
        -2 * new[:, 0]
    )


@pytest.mark.model
def test_a_longer_table_is_tuned_and_measured(base: Path, texts: Path, tmp_path: Path) -> None:
    extend(base, to=256, out=tmp_path / "long", method="interpolate-table")
    run = tune(tmp_path / "long", data=[texts], steps=30, learning_rate=3e-3, batch_tokens=512, out=tmp_path / "tuned")
    assert run.resolved["length"] == 256 and "stock forward" in run.resolved["engine"]
    assert "resampled to 256" in (tmp_path / "tuned" / CARD).read_text()
    assert not {key for key in config_of(tmp_path / "tuned") if "rope" in key}
    measured = {}
    for name in ("long", "tuned"):
        found = evaluate(
            tmp_path / name, data=[texts], lengths=[32, 256], stride=32, max_tokens=600, allow_overlap=True,
            out=tmp_path / f"{name}-measured",
        )  # fmt: skip
        measured[name] = {row.length: row.value for row in found.results if row.metric == "perplexity"}
        assert found.resolved["engine"] == "the stock forward pass"
        assert any(row.metric == "k_max" and row.length == 256 for row in found.results)
    assert measured["tuned"][256] < 0.5 * measured["long"][256]
    assert read_run(tmp_path / "tuned").resolved["subject"]["method"] == "interpolate-table"
    # tuned, it counts as pretrained at its window, and goes on from there
    assert planned_extension(tmp_path / "tuned", 512, "interpolate-table").before.window.original == 256
    with pytest.raises(RopeError, match="already lengthened by interpolate-table"):
        planned_extension(tmp_path / "long", 512, "interpolate-table")


def test_a_base_is_measured_within_its_table_and_no_further(base: Path, texts: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="40 positions"):
        evaluate(base, data=[texts], lengths=[32, 64], out=tmp_path / "measured")
    assert not (tmp_path / "measured").exists()
    assert load_model(open_checkpoint(base)).window == WINDOW


def test_what_cannot_be_is_refused_with_the_way_out(base: Path, tiny_llama: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(RopeError, match=r"learned table of 40 positions(.|\n)*--method interpolate-table"):
        extend(base, to=80, out=out)
    with pytest.raises(RopeError, match=r"this model rotates(.|\n)*--method pi"):
        extend(tiny_llama, to=128, out=out, method="interpolate-table")
    with pytest.raises(RopeError, match="not above the table of 40"):
        extend(base, to=40, out=out, method="interpolate-table")
    with pytest.raises(RopeError, match="has no options"):
        extend(base, to=80, out=out, method="interpolate-table", options={"theta": 5e5})
    with pytest.raises(RopeError, match="Start from the base checkpoint"):
        extend(base, to=80, out=out, method="interpolate-table", start="original")
    with pytest.raises(RopeError, match="Did you mean 'interpolate-table'"):
        extend(base, to=80, out=out, method="interpolate-tabel")
    with pytest.raises(
        CheckpointError, match=r"a learned table of absolute positions(.|\n)*--method interpolate-table"
    ):
        inspect(base)
    assert not out.exists()


def test_the_command_line_speaks_of_tables(base: Path, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    runner, out = CliRunner(), tmp_path / "long"
    given = ["extend", str(base), "--to", "80", "--method", "interpolate-table", "--out", str(out)]
    dry = runner.invoke(app, [*given, "--dry-run"])
    assert dry.exit_code == 0 and "resampled to 80" in dry.output and not out.exists()
    done = runner.invoke(app, given)
    assert (
        done.exit_code == 0
        and "window 40 -> 80 by interpolate-table, written as a table of 80 positions" in done.output
    )
    assert "rope_" not in (out / CARD).read_text()
    for verb in (["check", str(out)], ["plan", str(out)], ["export", str(out), "--out", str(tmp_path / "gguf")],
                 ["run", str(out), "--out", str(tmp_path / "run")]):  # fmt: skip
        refused = runner.invoke(app, verb)
        assert refused.exit_code == 2 and "learned table" in refused.output, verb


def test_two_tables_or_none_are_no_model_of_this_kind(tmp_path: Path, tiny_tokenizer: Path) -> None:
    base = make("gpt2", tmp_path / "base", tiny_tokenizer)
    weights = load_file(base / "model.safetensors")
    save_file(weights | {"h.wpe.weight": weights["transformer.wpe.weight"].clone()}, base / "model.safetensors")
    with pytest.raises(CheckpointError, match="2 tensors named wpe"):
        extend(base, to=80, out=tmp_path / "out", method="interpolate-table")
    assert not (tmp_path / "out").exists()
