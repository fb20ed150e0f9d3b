"""What both training benchmarks share: one step by what `ropewalk tune` runs, and by transformers' Trainer and TRL's."""

import contextlib
import io
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from paired import random_llama
from transformers import LlamaForCausalLM, TrainerCallback, TrainingArguments

from ropewalk.progress import silent
from ropewalk.train.loop import Saving, Trainer
from ropewalk.train.recipe import resolved_recipe
from ropewalk.train.rows import TokenRows

LEARNING_RATE = 1e-5


def tokens_of(length: int, vocabulary: int, rows: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, vocabulary, length * rows).astype(np.int32)


def model_of(vocabulary: int) -> LlamaForCausalLM:
    return random_llama(vocabulary, window=65536).train()


def ours(model: LlamaForCausalLM, length: int, steps: int, folder: Path, keeps: list[str] | None = None) -> list[float]:
    """Seconds of each step. `keeps`: what each layer keeps; None: as much as memory bears, as `ropewalk tune` has it."""
    vocabulary = model.config.vocab_size
    recipe = resolved_recipe(
        "paper", parameters=1, length=length, steps=steps, learning_rate=LEARNING_RATE, batch_tokens=length
    )
    rows = TokenRows(tokens_of(length, vocabulary, steps), length, seed=0)
    trainer = Trainer(model, recipe, rows, folder, torch.float32, keeps=keeps)
    seconds = []
    step = trainer._one_step

    def timed() -> dict[str, float]:
        began = time.perf_counter()
        entry = step()
        seconds.append(time.perf_counter() - began)
        return entry

    trainer._one_step = timed  # type: ignore[method-assign]
    trainer.run(Saving(every=10**9, keep=0), silent)
    return seconds


class Clock(TrainerCallback):
    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        self._began = time.perf_counter()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.seconds.append(time.perf_counter() - self._began)


class Rows(torch.utils.data.Dataset):
    def __init__(self, tokens: np.ndarray, length: int):
        self.rows = torch.from_numpy(tokens.astype(np.int64)).view(-1, length)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self.rows[index], "labels": self.rows[index]}


def theirs(model: LlamaForCausalLM, length: int, steps: int, folder: Path, *, checkpointing: bool) -> list[float]:
    """Seconds of each step of transformers' Trainer with its defaults: SDPA, fused AdamW."""
    arguments = TrainingArguments(
        output_dir=str(folder), per_device_train_batch_size=1, max_steps=steps, learning_rate=LEARNING_RATE,
        gradient_checkpointing=checkpointing, report_to=[], save_strategy="no", logging_strategy="no",
        disable_tqdm=True, use_cpu=not torch.cuda.is_available(), dataloader_num_workers=0,
    )  # fmt: skip
    clock = Clock()
    data = Rows(tokens_of(length, model.config.vocab_size, steps), length)
    transformers.Trainer(model=model, args=arguments, train_dataset=data, callbacks=[clock]).train()
    if checkpointing:
        getattr(model, "activation_checkpointing_disable", model.gradient_checkpointing_disable)()
    return clock.seconds


def trl(model: LlamaForCausalLM, length: int, steps: int, folder: Path, *, checkpointing: bool) -> list[float]:
    """Seconds of each step of TRL's SFTTrainer, whose loss is computed in chunks, on the same rows."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    arguments = SFTConfig(
        output_dir=str(folder), per_device_train_batch_size=1, max_steps=steps, learning_rate=LEARNING_RATE,
        gradient_checkpointing=checkpointing, report_to=[], save_strategy="no", logging_strategy="no", bf16=False,
        disable_tqdm=True, use_cpu=not torch.cuda.is_available(), max_length=length, packing=False,
        dataset_kwargs={"skip_prepare_dataset": True},
    )  # fmt: skip
    rows = tokens_of(length, model.config.vocab_size, steps).reshape(-1, length)
    data = Dataset.from_dict({"input_ids": rows.tolist(), "labels": rows.tolist()})
    clock = Clock()
    trainer = SFTTrainer(
        model=model, args=arguments, train_dataset=data, callbacks=[clock], processing_class=_tokenizer(model)
    )
    trainer.train()
    if checkpointing:
        getattr(model, "activation_checkpointing_disable", model.gradient_checkpointing_disable)()
    return clock.seconds


def _tokenizer(model: LlamaForCausalLM) -> Any:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = {f"w{n}": n for n in range(model.config.vocab_size)}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="w0")),
        unk_token="w0", pad_token="w0", eos_token="w1",
    )  # fmt: skip


def in_new_folder(way: Callable[..., list[float]], *args: Any, **options: Any) -> list[float]:
    """What the libraries print of their own is not shown."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        return way(*args, folder=Path(folder), **options)


def gradients(model: LlamaForCausalLM, length: int, keeps: list[str] | None) -> tuple[float, float, float]:
    """Our loss, the stock model's, and the largest relative difference of a gradient, on one row."""
    row = tokens_of(length, model.config.vocab_size, 1)
    model.zero_grad()
    tokens = torch.from_numpy(row.astype(np.int64))[None]
    stock = model(input_ids=tokens, labels=tokens, use_cache=False).loss
    stock.backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    with tempfile.TemporaryDirectory() as folder:
        recipe = resolved_recipe("paper", parameters=1, length=length, steps=1, batch_tokens=length)
        trainer = Trainer(model, recipe, TokenRows(row, length, seed=0), Path(folder), torch.float32, keeps=keeps)
        loss, _ = trainer._accumulate()
    worst = max(float((p.grad - expected[name]).norm() / expected[name].norm()) for name, p in model.named_parameters())
    model.zero_grad(set_to_none=True)
    return loss, stock.item(), worst
