"""The count of a model's numbers from its config.json, against the models that transformers builds."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from ropewalk.checkpoint.folder import open_checkpoint
from ropewalk.errors import CheckpointError
from ropewalk.planning.shapes import FAMILIES, PAPER_SIZES, paper_config, shape_of

# Sides differ from each other, so that two of them exchanged give another number.
SIDES = {
    "vocab_size": 101, "hidden_size": 48, "intermediate_size": 40, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
VARIANTS = [{}, {"tie_word_embeddings": True}, {"tie_word_embeddings": False}, {"attention_bias": True},
            {"attention_bias": False}, {"num_key_value_heads": 4}]  # fmt: skip


def built(config) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in AutoModelForCausalLM.from_config(config).parameters())


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: "-".join(f"{k}={v[k]}" for k in v) or "plain")
@pytest.mark.parametrize("model_type", FAMILIES)
def test_the_count_is_that_of_transformers(model_type: str, variant: dict) -> None:
    heads = {} if model_type in ("gpt_neox", "phi3") else {"head_dim": 16}  # these have width over heads
    sides = {key: value for key, value in SIDES.items() if model_type != "gpt_neox" or key != "num_key_value_heads"}
    if model_type == "gpt_neox":
        variant = {key: value for key, value in variant.items() if key != "num_key_value_heads"}
    config = AutoConfig.for_model(model_type, **(sides | heads | variant))
    assert shape_of(config.to_dict()).parameters == built(config)


@pytest.mark.parametrize("model_type", FAMILIES)
def test_what_a_config_leaves_unsaid_is_the_types_own(model_type: str) -> None:
    """Only the sides that every published config has; the rest are the defaults of the class."""
    sides = {key: SIDES[key] for key in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
                                         "num_attention_heads", "max_position_embeddings")}  # fmt: skip
    sides |= {"hidden_size": 512, "num_attention_heads": 16, "pad_token_id": 0}
    config = AutoConfig.for_model(model_type, **sides)
    said = sides | {"model_type": model_type}
    if model_type in ("gemma", "gemma2", "gemma3_text", "qwen2", "qwen3"):  # published ones say their key heads
        said["num_key_value_heads"] = config.num_key_value_heads
    assert shape_of(said).parameters == built(config)


def test_a_biased_mlp_is_counted() -> None:
    config = AutoConfig.for_model("llama", **SIDES, mlp_bias=True)
    assert shape_of(config.to_dict()).parameters == built(config)


def test_the_papers_sizes_have_the_parameters_that_were_published() -> None:
    """LLaMA (arXiv 2302.13971) says 6.7B, 13.0B, 32.5B and 65.2B; the last digits are those of transformers' models."""
    counts = {name: shape_of(paper_config(name)).parameters for name in PAPER_SIZES}
    assert [round(count / 1e9, 1) for count in counts.values()] == [6.7, 13.0, 32.5, 65.3]
    assert counts["llama-7b"] == 6_738_415_616
    assert counts == {name: built(AutoConfig.for_model(**paper_config(name))) for name in PAPER_SIZES}


def test_the_pilots_count_is_that_of_its_weights() -> None:
    checkpoint = open_checkpoint("pilot")
    assert shape_of(checkpoint.config).parameters == checkpoint.parameters


def test_another_family_is_counted_from_its_weights_or_refused() -> None:
    config = SIDES | {"model_type": "helium", "head_dim": 16}
    assert shape_of(config, stored=123_456).parameters == 123_456
    with pytest.raises(CheckpointError, match="'helium' has no formula here") as caught:
        shape_of(config)
    assert "Fetch the weights" in str(caught.value)


@pytest.mark.parametrize("key", ["hidden_size", "num_hidden_layers", "vocab_size", "num_attention_heads"])
@pytest.mark.parametrize("value", [None, 0, "many", 2.5])
def test_a_side_that_cannot_be_is_named(key: str, value: object) -> None:
    with pytest.raises(CheckpointError, match=key):
        shape_of(SIDES | {"model_type": "llama", key: value})


def test_a_nested_language_model_is_the_one_that_is_counted(tmp_path: Path) -> None:
    inner = SIDES | {"model_type": "llama", "rope_theta": 1e4}
    nested = json.loads(json.dumps({"model_type": "llava", "text_config": inner}))
    assert shape_of(nested) == shape_of(inner)
