"""Adapters: what they leave alone, what they train, and that the two forms of the result are one model."""

import importlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, GPTNeoXConfig, GPTNeoXForCausalLM, Qwen2Config, Qwen2ForCausalLM
from typer.testing import CliRunner

from ropewalk.checkpoint.folder import open_checkpoint
from ropewalk.cli import app
from ropewalk.errors import DataError
from ropewalk.extension import extend
from ropewalk.model.adapters import attached, chosen_adapter
from ropewalk.train.loop import Trainer
from ropewalk.train.recipe import Recipe
from ropewalk.train.rows import TokenRows
from ropewalk.train.tune import tune
from tests.conftest import TEXT, config_of, make_llama

TOKENS = torch.arange(40)[None] * 7 % 300
QUICK = {"steps": 3, "length": 32, "learning_rate": 1e-2, "seed": 1}
LLAMA = ("q_proj", "k_proj", "v_proj", "o_proj")
NEOX = ("query_key_value", "dense")
# transformers renamed it activation checkpointing; peft 0.21 and transformers before the new name ask by the old one
OLD_NAME = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.* is deprecated:FutureWarning")
SIDES = {
    "vocab_size": 300, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 3,
    "max_position_embeddings": 64, "initializer_range": 0.2, "bos_token_id": 0, "eos_token_id": 1,
}  # fmt: skip


def make_qwen2(folder: Path, tokenizer: Path, **config: Any) -> Path:
    """Its queries, keys and values have biases; random ones, where transformers begins at zero."""
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(Qwen2Config(**(SIDES | {"num_key_value_heads": 1} | config)))
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.2)
    return saved(model, folder, tokenizer)


def make_neox(folder: Path, tokenizer: Path, **config: Any) -> Path:
    torch.manual_seed(0)
    return saved(GPTNeoXForCausalLM(GPTNeoXConfig(**(SIDES | {"rotary_pct": 0.5} | config))), folder, tokenizer)


def saved(model: Any, folder: Path, tokenizer: Path) -> Path:
    model.save_pretrained(folder)
    for file in tokenizer.iterdir():
        shutil.copyfile(file, folder / file.name)
    return folder


MAKERS = {
    "llama": lambda folder, tokenizer: make_llama(folder, tokenizer),
    "llama-tied": lambda folder, tokenizer: make_llama(folder, tokenizer, tie_word_embeddings=True),
    "qwen2": lambda folder, tokenizer: make_qwen2(folder, tokenizer, tie_word_embeddings=True),
    "neox": lambda folder, tokenizer: make_neox(folder, tokenizer),
    "neox-tied": lambda folder, tokenizer: make_neox(folder, tokenizer, tie_word_embeddings=True),
}


@pytest.fixture(scope="module")
def bases(tiny_tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One extended checkpoint a family. Shared: never written to."""
    folder = tmp_path_factory.mktemp("bases")
    for name, make in MAKERS.items():
        extend(make(folder / f"{name}-short", tiny_tokenizer), to=128, out=folder / name)
    return {name: folder / name for name in MAKERS}


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(TEXT)
    return path


def loaded(folder: Path, **options: Any) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, **options).eval()


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    return model(TOKENS).logits


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def trained_on(model: Any, folder: Path, name: str = "lora+") -> tuple[Any, Trainer]:
    """A model with its adapter, and a trainer over it."""
    trained = attached(model, chosen_adapter(name), 0)
    recipe = Recipe(name="paper", steps=3, length=32, batch_tokens=128, learning_rate=1e-2)
    rows = TokenRows(np.random.default_rng(0).integers(300, size=640, dtype=np.int32), recipe.length, seed=1)
    return trained, Trainer(model, recipe, rows, folder, torch.float32)


@pytest.mark.parametrize("name", ["lora", "lora+"])
@pytest.mark.parametrize("family", MAKERS)
def test_an_adapter_begins_at_the_base_and_merges_into_its_tensors(
    bases: dict[str, Path], family: str, name: str
) -> None:
    model = loaded(bases[family])
    before, names = logits(model), model.state_dict().keys()
    trained = attached(model, chosen_adapter(name), 0)
    assert trained.model is model and set(trained.targets) == set(NEOX if "neox" in family else LLAMA)
    assert torch.equal(logits(model), before)
    for parameter_name, parameter in model.named_parameters():
        if "lora_B" in parameter_name:
            torch.nn.init.normal_(parameter, std=0.2)
    apart = logits(model)
    assert (apart - before).abs().max() > 0.1
    trained.merge()
    assert model.state_dict().keys() == names
    torch.testing.assert_close(logits(model), apart, rtol=0, atol=2e-5)  # sums in another order, logits of about 5


@pytest.mark.parametrize("name", ["lora", "lora+"])
@pytest.mark.parametrize("family", MAKERS)
def test_what_is_not_trained_stays_bit_for_bit(
    bases: dict[str, Path], text: Path, tmp_path: Path, family: str, name: str
) -> None:
    """LoRA's targets change; embeddings and norms change with lora+ alone; nothing else does."""
    run = tune(bases[family], out=tmp_path / "tuned", data=[text], adapter=name, **QUICK)
    before, after = weights(bases[family]), weights(tmp_path / "tuned")
    assert before.keys() == after.keys()
    changed = {n for n in before if not torch.equal(before[n], after[n])}
    targets = tuple(f"{target}.weight" for target in (NEOX if "neox" in family else LLAMA))
    expected = {n for n in before if n.endswith(targets)}
    if name == "lora+":
        expected |= {n for n in before if "norm" in n or "embed_tokens" in n or "embed_in" in n}
    assert changed == expected
    config = config_of(tmp_path / "tuned")
    assert config == config_of(bases[family]) and config["rope_scaling"]["rope_type"] == "linear"
    tied = config["tie_word_embeddings"]
    model = loaded(tmp_path / "tuned")
    assert (model.get_output_embeddings().weight is model.get_input_embeddings().weight) == tied
    lora, whole = [n for n in expected if n.endswith(targets)], [n for n in expected if not n.endswith(targets)]
    trained = sum(8 * sum(before[n].shape) for n in lora) + sum(before[n].numel() for n in whole)  # A and B of rank 8
    assert run.resolved["trained_parameters"] == trained


@OLD_NAME
@pytest.mark.parametrize("name", ["lora", "lora+"])
@pytest.mark.parametrize("family", MAKERS)
def test_the_adapter_folder_is_the_merged_checkpoint_to_peft(
    bases: dict[str, Path], text: Path, tmp_path: Path, family: str, name: str
) -> None:
    options = {"data": [text], "adapter": name, "lora_rank": 4, "lora_alpha": 12} | QUICK
    tune(bases[family], out=tmp_path / "merged", **options)
    tune(bases[family], out=tmp_path / "apart", merge=False, **options)
    config = json.loads((tmp_path / "apart" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(bases[family]) and (config["r"], config["lora_alpha"]) == (4, 12)
    left = {path.name for path in (tmp_path / "apart").iterdir()}
    assert left >= {"README.md", "adapter_config.json", "adapter_model.safetensors", "run.json"}
    assert not left & {"config.json", "model.safetensors", "adapter"}  # it would be taken for a whole model
    model = PeftModel.from_pretrained(loaded(bases[family]), tmp_path / "apart").eval()
    ours = logits(loaded(tmp_path / "merged"))
    assert (ours - logits(loaded(bases[family]))).abs().max() > 0.01
    torch.testing.assert_close(logits(model), ours, rtol=0, atol=1e-5)
    torch.testing.assert_close(logits(model.merge_and_unload()), ours, rtol=0, atol=1e-5)


@OLD_NAME
def test_training_an_adapter_equals_a_plain_loop_over_peft_s_own_model(bases: dict[str, Path], tmp_path: Path) -> None:
    """Same rows and first A, peft's wrapper with its modules_to_save, torch's own loss and AdamW."""
    trained, trainer = trained_on(loaded(bases["llama"]), tmp_path)
    theirs = get_peft_model(
        loaded(bases["llama"]),
        LoraConfig(r=8, lora_alpha=16, target_modules=list(LLAMA), modules_to_save=list(trained.whole)),
    )
    first = {n: p.detach().clone() for n, p in trained.model.named_parameters() if "lora_A" in n}
    for name, value in first.items():
        theirs.base_model.model.get_parameter(name).data.copy_(value)
    optimizer = torch.optim.AdamW(
        [p for p in theirs.parameters() if p.requires_grad], betas=(0.9, 0.95), weight_decay=0
    )
    for step in range(3):
        rows = [trainer.rows.row(trainer.recipe.sequences * step + i) for i in range(trainer.recipe.sequences)]
        tokens = torch.stack([torch.from_numpy(row.tokens) for row in rows])
        loss = theirs(tokens, labels=tokens).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)
        optimizer.param_groups[0]["lr"] = trainer.recipe.rate(step)
        optimizer.step()
        optimizer.zero_grad()
        assert trainer._one_step()["loss"] == pytest.approx(loss.item(), abs=1e-5)
    assert any(not torch.equal(trained.model.get_parameter(n), value) for n, value in first.items())
    trained.merge()
    merged = theirs.merge_and_unload().state_dict()
    for name, tensor in trained.model.state_dict().items():
        torch.testing.assert_close(tensor, merged[name], rtol=1e-3, atol=2e-5)  # Adam divides rounding by itself


@OLD_NAME
def test_gradients_reach_every_trained_weight_through_checkpointed_layers(
    bases: dict[str, Path], tmp_path: Path
) -> None:
    """The embedding is frozen with lora, so that nothing before the first layer asks for gradients."""
    gradients = []
    for checkpointed in (False, True):
        model = loaded(bases["llama"])
        if checkpointed:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        _, trainer = trained_on(model, tmp_path, "lora")
        trainer._accumulate()
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.requires_grad})
    assert gradients[0].keys() == gradients[1].keys() and len(gradients[0]) == 2 * 4 * 2
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-4, atol=1e-7)
        assert ("lora_B" in name) == bool(gradient.abs().max() > 0)  # of A it is zero as long as B is


class Killed(BaseException):
    """What a kill looks like from inside: nothing after it runs."""


@pytest.mark.parametrize("merge", [True, False])
@pytest.mark.parametrize("step", [1, 4])
def test_resumed_equals_uninterrupted_bit_for_bit(
    bases: dict[str, Path], text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, merge: bool
) -> None:
    options = {"data": [text], "adapter": "lora+", "save_every": 2, "merge": merge} | QUICK | {"steps": 6}
    tune(bases["qwen2"], out=tmp_path / "whole", **options)
    one_step = Trainer._one_step

    def killed_at(self: Trainer) -> dict[str, float]:
        if self.step == step:
            raise Killed
        return one_step(self)

    monkeypatch.setattr(Trainer, "_one_step", killed_at)
    with pytest.raises(Killed):
        tune(bases["qwen2"], out=tmp_path / "killed", **options)
    monkeypatch.undo()
    torch.manual_seed(99)  # where the process stands in its random numbers is nobody's business
    tune(bases["qwen2"], out=tmp_path / "killed", resume=True, **options)
    name = "model.safetensors" if merge else "adapter_model.safetensors"
    ours, theirs = load_file(tmp_path / "killed" / name), load_file(tmp_path / "whole" / name)
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[n], theirs[n]) for n in ours)


def test_a_save_holds_what_is_trained_and_no_more(bases: dict[str, Path], text: Path, tmp_path: Path) -> None:
    run = tune(bases["llama"], out=tmp_path / "tuned", data=[text], adapter="lora", **QUICK)
    save = tmp_path / "tuned" / "saves" / "step-000003"
    held, moments = load_file(save / "model.safetensors"), load_file(save / "optimizer.safetensors")
    assert all("lora_" in name for name in held) and len(held) == 2 * 4 * 2
    assert sum(tensor.numel() for tensor in held.values()) == run.resolved["trained_parameters"]
    assert {name.rpartition("/")[0] for name in moments} == held.keys()


def test_merging_is_in_float32_when_bfloat16_is_computed_in(bases: dict[str, Path], text: Path, tmp_path: Path) -> None:
    options = {"data": [text], "adapter": "lora", "dtype": "bfloat16"} | QUICK
    tune(bases["llama"], out=tmp_path / "merged", **options)
    tune(bases["llama"], out=tmp_path / "apart", merge=False, **options)
    adapter = load_file(tmp_path / "apart" / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in adapter.values()} == {torch.float32}
    before, after = weights(bases["llama"]), weights(tmp_path / "merged")
    name = "model.layers.1.self_attn.q_proj"
    a, b = (adapter[f"base_model.model.{name}.lora_{part}.weight"].double() for part in "AB")
    expected = before[f"{name}.weight"].double() + 16 / 8 * b @ a
    assert (after[f"{name}.weight"] - before[f"{name}.weight"]).abs().max() > 1e-3
    torch.testing.assert_close(after[f"{name}.weight"].double(), expected, rtol=0, atol=1e-6)  # bfloat16 is off by 1e-3


def test_the_record_and_the_card_say_what_was_trained(bases: dict[str, Path], text: Path, tmp_path: Path) -> None:
    options = {"data": [text]} | QUICK
    everything = tune(bases["llama"], out=tmp_path / "full", **options)
    assert everything.resolved["trained_parameters"] == open_checkpoint(bases["llama"]).parameters
    assert "every weight was trained" in (tmp_path / "full" / "README.md").read_text()
    run = tune(
        bases["llama"], out=tmp_path / "lora", adapter="lora", lora_rank=3, lora_alpha=7.5,
        lora_targets=["v_proj", "down_proj"], **options,
    )  # fmt: skip
    told = {key: run.resolved[key] for key in ("adapter", "lora_rank", "lora_alpha", "lora_targets", "merged")}
    assert told == {
        "adapter": "lora", "lora_rank": 3, "lora_alpha": 7.5, "lora_targets": ["v_proj", "down_proj"], "merged": True,
    }  # fmt: skip
    assert run.resolved["trained_parameters"] == 2 * 3 * ((24 + 8) + (40 + 24))  # layers x rank x (in + out)
    card = (tmp_path / "lora" / "README.md").read_text()
    assert "LoRA of rank 3 and alpha 7.5 on v_proj, down_proj was trained, and no other weight." in card
    tune(bases["llama-tied"], out=tmp_path / "apart", adapter="lora+", merge=False, **options)
    card = (tmp_path / "apart" / "README.md").read_text()
    assert "the embeddings, which are the output head too, and norms in full" in card
    assert f'from_pretrained("{bases["llama-tied"]}")' in card and "library_name: peft" in card


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"adapter": "lorra"}, "unknown adapter 'lorra'. Did you mean 'lora'"),
        ({"lora_rank": 8}, "no effect with --adapter full: --lora-rank"),
        ({"lora_targets": ["q_proj"], "merge": False}, "no effect with --adapter full: --lora-targets, --no-merge"),
        ({"adapter": "lora", "lora_rank": 0}, "--lora-rank is 0"),
        ({"adapter": "lora", "lora_alpha": float("nan")}, "--lora-alpha is nan"),
        ({"adapter": "lora", "lora_targets": []}, "--lora-targets names nothing"),
        ({"adapter": "lora", "lora_targets": ["q_proj", "query"]}, "has 'query', and no linear layer"),
        (
            {"adapter": "lora+", "lora_targets": ["lm_head"]},
            "from these: down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj.",
        ),
    ],
)
def test_settings_that_cannot_be_are_refused_before_any_work(
    bases: dict[str, Path], text: Path, tmp_path: Path, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(DataError) as error:
        tune(bases["llama"], out=tmp_path / "out", data=[text], **(QUICK | options))
    assert says in str(error.value) and not (tmp_path / "out").exists()


def test_without_peft_the_extra_is_named(
    bases: dict[str, Path], text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ImportError):
        importlib.import_module("peft")
    with pytest.raises(DataError, match=r"pip install 'ropewalk\[lora\]'"):
        tune(bases["llama"], out=tmp_path / "out", data=[text], adapter="lora", **QUICK)
    tune(bases["llama"], out=tmp_path / "full", data=[text], **(QUICK | {"steps": 1}))


def test_from_the_command_line(bases: dict[str, Path], text: Path, tmp_path: Path) -> None:
    command = ["tune", str(bases["neox"]), "--data", str(text), "--steps", "1", "--length", "32", "--adapter", "lora+"]
    command += ["--lora-rank", "2", "--lora-alpha", "4", "--no-merge"]
    done = CliRunner().invoke(app, [*command, "--lora-targets", "dense", "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (2, 4)
    refused = CliRunner().invoke(app, [*command, "--lora-targets", "q_proj", "--out", str(tmp_path / "other")])
    assert refused.exit_code == 2 and not (tmp_path / "other").exists()
