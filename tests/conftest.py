"""Shared by all tests: small real checkpoints made on the spot, and texts. Nothing is downloaded."""

import json
from pathlib import Path

import pytest

TEXT = "The quick brown fox jumps over the lazy dog 0123456789. " * 400


@pytest.fixture(scope="session")
def tiny_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A byte-level tokenizer of 300 tokens with a BOS, as a folder."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<s>", "</s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator([TEXT], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    folder = tmp_path_factory.mktemp("tokenizer")
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", model_max_length=64
    ).save_pretrained(folder)
    return folder


def make_llama(folder: Path, tokenizer: Path | None, *, window: int = 64, seed: int = 0, **config) -> Path:
    """A random Llama with sides that differ from each other, saved as transformers saves it."""
    import shutil

    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    sides = {
        "vocab_size": 300, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 3,
        "num_key_value_heads": 1, "head_dim": 8, "max_position_embeddings": window, "initializer_range": 0.2,
        "bos_token_id": 0, "eos_token_id": 1,
    }  # fmt: skip
    LlamaForCausalLM(LlamaConfig(**(sides | config))).save_pretrained(folder)
    for file in tokenizer.iterdir() if tokenizer else ():
        shutil.copyfile(file, folder / file.name)
    return folder


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Path) -> Path:
    """A random Llama with a window of 64 tokens. Shared: never written to."""
    return make_llama(tmp_path_factory.mktemp("models") / "tiny", tiny_tokenizer)


@pytest.fixture(scope="session")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three documents of different lengths in one jsonl file."""
    path = tmp_path_factory.mktemp("texts") / "texts.jsonl"
    path.write_text(
        "".join(
            json.dumps({"text": TEXT[start : start + size]}) + "\n" for start, size in ((0, 900), (7, 2500), (3, 4000))
        )
    )
    return path


def config_of(folder: Path) -> dict:
    return json.loads((folder / "config.json").read_text())
