"""A model is made of just the tensors that are stored: none is made up, and none is left out without a word."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from ropewalk.checking import check
from ropewalk.checkpoint.folder import open_checkpoint
from ropewalk.errors import CheckpointError
from ropewalk.extension import extend
from ropewalk.inspection import inspect
from ropewalk.model.load import load_model
from ropewalk.model.ranked import load_hollow
from tests.conftest import config_of

Tensors = dict[str, torch.Tensor]
LAYER = "model.layers.0.self_attn"


def changed(source: Path, folder: Path, change: Callable[[Tensors], Tensors], **config: Any) -> Path:
    shutil.copytree(source, folder)
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path, metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config_of(folder) | config))
    return folder


def as_they_are(tensors: Tensors) -> Tensors:
    return tensors


@pytest.mark.parametrize(
    ("change", "config", "says"),
    [
        (lambda t: {f"_orig_mod.{name}": one for name, one in t.items()}, {}, r"_orig_mod\.lm_head\.weight.* and 18 more"),
        (as_they_are, {"num_hidden_layers": 3}, r"model\.layers\.2\..* not there"),
        (as_they_are, {"num_hidden_layers": 1}, r"model\.layers\.1\..* no part of the model"),
        (lambda t: {name: one for name, one in t.items() if name != f"{LAYER}.q_proj.weight"}, {},
         rf": {LAYER}\.q_proj\.weight is not there"),
        (lambda t: t | {f"{LAYER}.q_proj.bias": torch.ones(24)}, {}, rf": {LAYER}\.q_proj\.bias is there"),
    ],
    ids=["prefix", "too few", "too many", "one missing", "one more"],
)  # fmt: skip
@pytest.mark.parametrize("loaded", [load_model, load_hollow])
def test_weights_of_another_model_are_refused(
    loaded: Any, change: Callable[[Tensors], Tensors], config: dict, says: str, tiny_llama: Path, tmp_path: Path
) -> None:
    folder = changed(tiny_llama, tmp_path / "m", change, **config)
    with pytest.raises(CheckpointError, match=says):
        loaded(open_checkpoint(folder), dtype="float32", device="cpu")


def test_what_older_versions_stored_beside_the_weights_is_let_pass(tiny_llama: Path, tmp_path: Path) -> None:
    computed = {f"{LAYER}.rotary_emb.inv_freq": torch.ones(4), "model.layers.0.attn.masked_bias": torch.tensor(-1e4)}
    folder = changed(tiny_llama, tmp_path / "m", lambda tensors: tensors | computed)
    tokens = torch.arange(2, 50)[None]
    before, after = (load_model(open_checkpoint(one), device="cpu").model for one in (tiny_llama, folder))
    assert torch.equal(before(tokens).logits, after(tokens).logits)
    load_hollow(open_checkpoint(folder), dtype="float32", device="cpu")


@pytest.mark.parametrize("stored", [True, False])
def test_a_tied_head_may_be_stored_or_not(stored: bool, tiny_llama: Path, tmp_path: Path) -> None:
    def tied(tensors: Tensors) -> Tensors:
        head = {"lm_head.weight": tensors["model.embed_tokens.weight"].clone()} if stored else {}
        return {name: one for name, one in tensors.items() if name != "lm_head.weight"} | head

    folder = changed(tiny_llama, tmp_path / "m", tied, tie_word_embeddings=True)
    for loaded in (load_model, load_hollow):
        loaded(open_checkpoint(folder), dtype="float32", device="cpu")


def test_an_unknown_dtype_is_no_fault_of_the_checkpoint(tiny_llama: Path) -> None:
    with pytest.raises(CheckpointError, match=r"^unknown dtype 'foo'"):
        load_model(open_checkpoint(tiny_llama), dtype="foo", device="cpu")


@pytest.mark.parametrize(
    ("change", "config", "says"),
    [
        (lambda t: {f"_orig_mod.{name}": one for name, one in t.items()}, {}, "begin with '_orig_mod.'"),
        (as_they_are, {"num_hidden_layers": 3}, "2 layers are stored, the last number 1"),
        (as_they_are, {"num_hidden_layers": 1}, "2 layers are stored"),
        (as_they_are, {"num_hidden_layers": 10**9}, "2 layers are stored"),
        (lambda t: {name.replace("layers.1.", "layers.2."): one for name, one in t.items()}, {}, "the last number 2"),
    ],
)
def test_verbs_that_load_no_model_refuse_other_layers_by_the_headers(
    change: Callable[[Tensors], Tensors], config: dict, says: str, tiny_llama: Path, tmp_path: Path
) -> None:
    folder = changed(tiny_llama, tmp_path / "m", change, **config)
    for verb in (
        lambda: inspect(folder),
        lambda: check(folder),
        lambda: extend(folder, to=256, out=tmp_path / "out"),
    ):
        with pytest.raises(CheckpointError, match=re.escape(says)):
            verb()
    assert not (tmp_path / "out").exists()


def test_layers_of_the_body_alone_are_those_of_the_model(tiny_llama: Path, tmp_path: Path) -> None:
    folder = changed(
        tiny_llama, tmp_path / "m", lambda t: {name.removeprefix("model."): one for name, one in t.items()}
    )
    assert inspect(folder)["parameters"] == inspect(tiny_llama)["parameters"]
    tokens = torch.arange(2, 50)[None]
    ours, theirs = (load_model(open_checkpoint(one), device="cpu").model for one in (folder, tiny_llama))
    assert torch.equal(ours(tokens).logits, theirs(tokens).logits)
