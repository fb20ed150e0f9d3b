"""How ranks are laid out, from config.json and the size of a step; no process is started."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    Gemma2Config,
    GraniteConfig,
    LlamaConfig,
    MistralConfig,
    Olmo2Config,
    Phi3Config,
    PretrainedConfig,
    Qwen2Config,
)

from ropewalk.checkpoint.folder import open_checkpoint
from ropewalk.errors import RankError
from ropewalk.model.ranks import Layout, Ranks
from ropewalk.model.shareable import can_share, require_can_share
from ropewalk.train.layout import chosen_layout
from ropewalk.train.recipe import Recipe
from tests.conftest import make_llama

SIDES: dict[str, Any] = {
    "vocab_size": 300, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 6, "max_position_embeddings": 128, "bos_token_id": 0, "eos_token_id": 1,
    "pad_token_id": 0,
}  # fmt: skip
SHARED = {
    "llama": LlamaConfig(**SIDES),
    "mistral of the whole text": MistralConfig(**SIDES, sliding_window=None),
    "qwen2, whose window is off": Qwen2Config(**SIDES, sliding_window=32),
    "olmo2": Olmo2Config(**SIDES),
}
NOT_SHARED = {
    "gemma2": (Gemma2Config(**SIDES), "its type is 'gemma2'"),
    "granite": (GraniteConfig(**SIDES), "its type is 'granite'"),
    "phi3": (Phi3Config(**SIDES), "its type is 'phi3'"),
    "mistral that slides": (MistralConfig(**SIDES, sliding_window=32), r"attend to the whole text \(sliding_window 32\)"),
    "qwen2 of two kinds of layers": (
        Qwen2Config(**SIDES, use_sliding_window=True, sliding_window=32, max_window_layers=1), r"\(sliding_window 32\)",
    ),
}  # fmt: skip


def checkpoint_of(config: PretrainedConfig, folder: Path):
    """Weights of a Llama beside any config.json: only headers are looked at."""
    make_llama(folder, None, num_attention_heads=4)
    config.save_pretrained(folder)
    return open_checkpoint(folder)


def laid_out(config: PretrainedConfig, folder: Path, count: int, sequences: int) -> Layout:
    """By the plan, for so many ranks that have not met."""
    ranks = Ranks()
    ranks.count = count
    recipe = Recipe(name="paper", steps=1, length=128, batch_tokens=128 * sequences, learning_rate=1e-3)
    on, compute = torch.device("cpu"), torch.float32
    return chosen_layout(None, ranks, checkpoint_of(config, folder), recipe, "full", compute, on)


@pytest.mark.parametrize("name", SHARED)
def test_a_sequence_is_shared_where_there_are_fewer_than_ranks(name: str, tmp_path: Path) -> None:
    assert laid_out(SHARED[name], tmp_path / "few", 4, 2) == Layout(2, 2)
    assert laid_out(SHARED[name], tmp_path / "enough", 4, 4) == Layout(4, 1)


@pytest.mark.parametrize("name", NOT_SHARED)
def test_a_family_that_cannot_share_a_sequence_is_not_asked_to(name: str, tmp_path: Path) -> None:
    """Nobody asked for it: ranks beyond the sequences wait."""
    config, _ = NOT_SHARED[name]
    assert laid_out(config, tmp_path / "few", 4, 2) == Layout(4, 1)


@pytest.mark.parametrize("name", NOT_SHARED)
def test_what_was_asked_for_and_cannot_be_is_refused_for_its_real_cause(name: str, tmp_path: Path) -> None:
    config, why = NOT_SHARED[name]
    checkpoint = checkpoint_of(config, tmp_path / "model")
    require_can_share(checkpoint, 1)
    with pytest.raises(RankError, match=rf"--sequence-parallel 2 cannot be had .*{why}.*\n.*\n.*sequence-parallel 1"):
        require_can_share(checkpoint, 2)


def test_heads_are_counted_before_anything_is_loaded(tmp_path: Path) -> None:
    checkpoint = checkpoint_of(LlamaConfig(**SIDES | {"num_attention_heads": 6, "head_dim": 4}), tmp_path / "model")
    assert can_share(checkpoint)
    require_can_share(checkpoint, 3)
    with pytest.raises(RankError, match="--sequence-parallel 4 does not divide the 6 heads"):
        require_can_share(checkpoint, 4)
