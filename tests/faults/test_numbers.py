"""Numbers that stop being numbers are caught where they arise, by name, and never saved; defaults of torch change nothing."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from ropewalk.checkpoint.folder import open_checkpoint
from ropewalk.errors import CheckpointError, DataError
from ropewalk.evals.evaluate import evaluate
from ropewalk.extension import extend
from ropewalk.model.finite import first_not_finite
from ropewalk.model.load import load_model
from ropewalk.model.rotary import assert_rotates, rotary_buffers
from ropewalk.train import loop
from ropewalk.train.state import saves
from ropewalk.train.tune import tune
from tests.conftest import TEXT, config_of

RUN = {"steps": 4, "batch_tokens": 128, "save_every": 1, "keep_saves": 9, "allow_short_documents": True}


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT[:6000])
    return path


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("model.embed_tokens", "what model.embed_tokens gives"),
        ("model.layers.0.self_attn.v_proj", "what model.layers.0.self_attn.v_proj gives"),
        ("model.layers.1.mlp.down_proj", "what model.layers.1.mlp.down_proj gives"),
        ("model.norm", "what model.norm gives"),
        ("lm_head", "what lm_head gives"),
    ],
)
def test_the_first_module_that_breaks_is_named(tiny_llama: Path, name: str, said: str) -> None:
    loaded = load_model(open_checkpoint(tiny_llama), dtype="float32", device="cpu")
    tokens = torch.arange(3, 11)[None]
    assert first_not_finite(loaded.model, tokens) is None
    with torch.no_grad():
        loaded.model.get_submodule(name).weight[5 % 3] = float("inf")
        loaded.model.get_submodule(name).weight[4] = float("nan")
    assert first_not_finite(loaded.model, tokens) == said
    assert not any(module._forward_hooks for module in loaded.model.modules())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0])
def test_a_frequency_that_is_no_number_is_no_rotation(tiny_llama: Path, value: float) -> None:
    loaded = load_model(open_checkpoint(tiny_llama), dtype="float32", device="cpu")
    _, _, frequencies_F, _ = next(rotary_buffers(loaded.model))
    frequencies_F[1] = value
    with pytest.raises(CheckpointError, match="does not rotate as its config says"):
        assert_rotates(loaded.model, loaded.checkpoint.ropes, "here")


def test_every_load_checks_the_rotation(tiny_llama: Path, tmp_path: Path) -> None:
    """A config.json that changes between the reading and the loading: the model would turn otherwise than planned."""
    folder = shutil.copytree(tiny_llama, tmp_path / "model")
    opened, config = open_checkpoint(folder), config_of(folder)
    config |= {"rope_theta": 20000.0, "rope_parameters": {"rope_type": "default", "rope_theta": 20000.0}}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"does not rotate as its config says: .* is off by \d+\.\d+% at pair"):
        load_model(opened, dtype="float32", device="cpu")


def test_weights_that_are_no_numbers_are_not_saved(
    tiny_llama: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss of the step was a number, and the step ruined the weights: the save before is the last good one."""
    whole_step = loop.Trainer._one_step

    def ruined(self: loop.Trainer) -> dict[str, float]:
        entry = whole_step(self)
        if self.step == 3:
            with torch.no_grad():
                self.model.model.norm.weight[0] = float("inf")
        return entry

    monkeypatch.setattr(loop.Trainer, "_one_step", ruined)
    out = tmp_path / "out"
    with pytest.raises(
        DataError, match=r"weight model\.norm\.weight is no longer finite after step 3.*\n.*step-000002"
    ):
        tune(tiny_llama, data=[text], out=out, **RUN)
    assert [save.step for save in saves(out)] == [1, 2] and not (out / "config.json").exists()


def test_a_ruined_last_step_makes_no_checkpoint(
    tiny_llama: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no save is to stay, the end itself looks at the weights."""
    whole_step = loop.Trainer._one_step

    def ruined(self: loop.Trainer) -> dict[str, float]:
        entry = whole_step(self)
        if self.step == 4:
            with torch.no_grad():
                self.model.model.norm.weight[0] = float("nan")
        return entry

    monkeypatch.setattr(loop.Trainer, "_one_step", ruined)
    with pytest.raises(DataError, match="no longer finite after step 4"):
        tune(tiny_llama, data=[text], out=tmp_path / "out", **(RUN | {"save_every": 100, "keep_saves": 0}))
    assert not (tmp_path / "out" / "config.json").exists()


def test_a_loss_that_is_no_number_names_the_module(
    tiny_llama: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights beyond what float16 computes with: finite themselves, and their products are not."""
    accumulate = loop.Trainer._accumulate

    def ruined(self: loop.Trainer) -> tuple[float, int]:
        if self.step == 2:
            with torch.no_grad():
                self.model.model.layers[1].mlp.up_proj.weight.fill_(6e4)
                self.model.model.layers[1].mlp.gate_proj.weight.fill_(6e4)
        return accumulate(self)

    monkeypatch.setattr(loop.Trainer, "_accumulate", ruined)
    with pytest.raises(
        DataError, match=r"not finite is in what model\.layers\.1\.mlp\.\S+ (gives|is given).*\n.*000002"
    ):
        tune(tiny_llama, data=[text], out=tmp_path / "out", **(RUN | {"dtype": "float16"}))


def test_a_loss_that_runs_away_stops_with_the_last_good_save(
    tiny_llama: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accumulate = loop.Trainer._accumulate
    monkeypatch.setattr(
        loop.Trainer,
        "_accumulate",
        lambda self: (lambda loss, n: (loss + 9.0 * (self.step >= 12), n))(*accumulate(self)),
    )
    with pytest.raises(
        DataError, match=r"at step 17, rows.*tuning cannot go on\.\n  The last good save is .*step-000016"
    ):
        tune(tiny_llama, data=[text], out=tmp_path / "out", **(RUN | {"steps": 30}))


@pytest.fixture(params=[torch.float64, torch.bfloat16], ids=str)
def another_default(request: pytest.FixtureRequest) -> Iterator[torch.dtype]:
    before = torch.get_default_dtype()
    yield request.param
    torch.set_default_dtype(before)


@pytest.mark.model
def test_a_process_with_another_default_dtype_measures_the_same(
    tiny_llama: Path, text: Path, tmp_path: Path, another_default: torch.dtype
) -> None:
    """YaRN, whose frequencies transformers computes with tensors of the default dtype."""
    extend(tiny_llama, to=256, out=tmp_path / "long", method="yarn")
    measured = {}
    for name in ("plain", "other"):
        options = {"tasks": ["perplexity"], "lengths": [64, 256], "stride": 64, "data": [text], "dtype": "float32"}
        measured[name] = evaluate(tmp_path / "long", out=tmp_path / name, **options).results
        torch.set_default_dtype(another_default)
    assert [row.value for row in measured["plain"]] == [row.value for row in measured["other"]]
