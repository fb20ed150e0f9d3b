"""Checkpoint -> model and tokenizer. With `head` and `loss`, the only door to torch and transformers."""

import contextlib
import hashlib
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from ropewalk.checkpoint.folder import Checkpoint
from ropewalk.errors import CheckpointError, DataError
from ropewalk.model.fit import require_fit
from ropewalk.model.rotary import assert_has_table, assert_rotates

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}

DEVICES = ("cpu", "cuda", "mps", "xpu")


class TextCodec:
    """Text <-> token ids, with what the tokenizer adds kept apart.

    `bos` holds the ids it puts before a text (none or one); what it would put after one is never added.
    """

    def __init__(self, tokenizer: Any, vocabulary: int, source: str):
        self.tokenizer = tokenizer
        self.vocabulary = vocabulary
        self._source = source
        plain, whole = self.encode("a"), self._ids("a", special=True)
        start = next((i for i in range(len(whole)) if whole[i : i + len(plain)] == plain), 0)
        self.bos = self._known(whole[:start])

    def encode(self, text: str) -> list[int]:
        """Ids of the text alone. Raises DataError for an id that the model has no embedding for."""
        return self._known(self._ids(text, special=False))

    def _known(self, ids: list[int]) -> list[int]:
        if ids and max(ids) >= self.vocabulary:
            raise DataError(
                f"the tokenizer of {self._source} gives the id {max(ids)}, and the model has {self.vocabulary} tokens.\n"
                "  Tokenizer and weights belong to different models.\n"
                "  Fetch the checkpoint's own tokenizer."
            )
        return ids

    def document(self, text: str) -> list[int]:
        """Ids of a document: what the tokenizer puts before it, then the text."""
        return [*self.bos, *self.encode(text)]

    def decode(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(list(ids))

    def _ids(self, text: str, *, special: bool) -> list[int]:
        return self.tokenizer(text, add_special_tokens=special, verbose=False)["input_ids"]


@dataclass(frozen=True)
class LoadedModel:
    """A model that was checked to have its positions as its folder says, and its tokenizer."""

    model: PreTrainedModel
    codec: TextCodec
    checkpoint: Checkpoint
    device: torch.device

    @property
    def window(self) -> int:
        return self.checkpoint.window.target


def load_model(checkpoint: Checkpoint, *, dtype: str | None = None, device: str | None = None) -> LoadedModel:
    """The model in evaluation mode. `dtype` None: bfloat16 on a GPU, float32 on a CPU; `device` None: a GPU if any.

    Raises CheckpointError when weights or tokenizer do not load, the weights are not those that config.json asks for, or
    the rotation is not the folder's.
    """
    chosen = chosen_device(device)
    numbers = chosen_dtype(dtype, chosen)
    codec = load_codec(checkpoint)
    with quiet_libraries():
        try:
            made: Any = AutoModelForCausalLM.from_pretrained(
                checkpoint.folder,
                dtype=numbers,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                output_loading_info=True,
            )
        except (OSError, ValueError, KeyError, RuntimeError, TypeError) as error:
            raise unloadable(checkpoint, error) from error
    model, info = made
    require_fit(info, checkpoint)
    model.to(chosen)  # device only: a cast here would cast the frequencies too
    if checkpoint.table is not None:
        assert_has_table(model, checkpoint.table, str(checkpoint.folder))
    else:
        assert_rotates(model, checkpoint.ropes, str(checkpoint.folder))
    return LoadedModel(model.eval(), codec, checkpoint, chosen)


def unloadable(checkpoint: Checkpoint, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"transformers could not load {checkpoint.folder}: {_first_line(error)}\n"
        "  Expected a causal language model in the format of transformers."
    )


def load_codec(checkpoint: Checkpoint) -> TextCodec:
    """The checkpoint's tokenizer. Raises CheckpointError when there is none or it does not load."""
    if not checkpoint.tokenizer_files:
        raise CheckpointError(
            f"{checkpoint.folder} has no tokenizer files.\n"
            "  Expected tokenizer.json or tokenizer.model beside the weights.\n"
            "  Copy them from the base model."
        )
    key = _tokenizer_key(checkpoint)
    if key not in _tokenizers:
        if len(_tokenizers) == KEPT_TOKENIZERS:
            del _tokenizers[next(iter(_tokenizers))]
        _tokenizers[key] = _read_tokenizer(checkpoint)
    tokenizer = _tokenizers[key]
    sizes = [config.get("vocab_size") for config in (checkpoint.config, checkpoint.config.get("text_config") or {})]
    known = [size for size in sizes if isinstance(size, int)]
    return TextCodec(tokenizer, known[-1] if known else 2**31, str(checkpoint.folder))


# A base model and what is made of it have one tokenizer: it is read once, by content. Reading a large one takes a second,
# and tokenizers (0.23) never gives back what it cached while encoding, a megabyte or two for each one that is dropped.
KEPT_TOKENIZERS = 8
_tokenizers: dict[str, Any] = {}


def _tokenizer_key(checkpoint: Checkpoint) -> str:
    """Of what decides how a tokenizer is read: its files, and the type of the model."""
    config = checkpoint.config
    content = hashlib.sha256(f"{config.get('model_type')}\0{config.get('tokenizer_class')}".encode())
    for name in sorted(checkpoint.tokenizer_files):
        content.update(f"\0{name}\0".encode() + (checkpoint.folder / name).read_bytes())
    return content.hexdigest()


def _read_tokenizer(checkpoint: Checkpoint) -> Any:
    # A bare SentencePiece model is LLaMA's original form: it was trained with a BOS, which transformers 5 leaves out
    # when no tokenizer_config.json asks for it.
    bare = checkpoint.tokenizer_files == ("tokenizer.model",)
    with quiet_libraries():
        try:
            return AutoTokenizer.from_pretrained(
                checkpoint.folder,
                trust_remote_code=False,
                local_files_only=True,
                **({"add_bos_token": True} if bare else {}),
            )
        except Exception as error:  # tokenizers raise bare Exception for a broken file
            raise CheckpointError(
                f"the tokenizer of {checkpoint.folder} does not load: {_first_line(error)}\n  Fetch its files again."
            ) from error


def chosen_device(device: str | None) -> torch.device:
    """The device of that name, or a GPU if there is one. Raises DataError for one that is not there."""
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        if chosen.type not in DEVICES:
            raise CheckpointError(
                f"a device of type {chosen.type!r} cannot be used.\n  Models are run on {', '.join(DEVICES)}.\n"
                "  Give one of those, or leave --device out."
            )
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise CheckpointError(
            f"no device {device!r} here: {_first_line(error)}\n  Use cpu, or leave --device out."
        ) from None
    return chosen


def chosen_dtype(dtype: str | None, device: torch.device) -> torch.dtype:
    if dtype is None:
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    if dtype not in DTYPES:
        raise CheckpointError(f"unknown dtype {dtype!r}.\n  Known: {', '.join(DTYPES)}.")
    return DTYPES[dtype]


def describe_device(device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """For run.json: what ran it."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return {"type": device.type, "name": name, "dtype": str(dtype).removeprefix("torch."),
            "threads": torch.get_num_threads()}  # fmt: skip


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Holds back the libraries' progress bars and notices; their errors come through."""
    from transformers.utils import logging as transformers_logging

    before = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    transformers_logging.set_verbosity(logging.ERROR)
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)
        if bars:
            transformers_logging.enable_progress_bar()


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
