"""What a candidate is judged by: the loss of whole windows under its rotation, on a model that is loaded once."""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from ropewalk.errors import DataError, RopeError
from ropewalk.model.load import LoadedModel, TextCodec
from ropewalk.model.rotary import rotary_buffers
from ropewalk.model.scoring import Scorer
from ropewalk.pilot.corpus import PILOT, training_texts
from ropewalk.rope.frequencies import base_frequencies
from ropewalk.searching.evolution import Candidate
from ropewalk.text.sources import sources


class Objective:
    """Mean loss in nats of all tokens of some windows; lower is better. Leaves the model turned by the last candidate.

    The model is the base, unscaled; only the numbers in its one rotary buffer change between candidates, never its code.
    """

    def __init__(self, loaded: LoadedModel, windows: Sequence[Sequence[int]]):
        found = list(rotary_buffers(loaded.model))
        if len(found) != 1:
            raise RopeError(
                f"{loaded.checkpoint.name} rotates in {len(found)} ways, one a kind of layer.\n"
                "  A search moves one set of frequencies, for all layers.\n"
                "  Use a method, such as --method yarn."
            )
        name, _, self._buffer, _ = found[0]
        self._rotary: Any = loaded.model.get_submodule(name.rpartition(".")[0])
        rope = loaded.checkpoint.rope
        self._base = torch.from_numpy(base_frequencies(rope.theta, rope.rotary_dim))
        self._scorer, self._windows = Scorer(loaded.model), [list(window) for window in windows]

    @torch.inference_mode()
    def __call__(self, candidate: Candidate) -> float:
        self._buffer.copy_((self._base / torch.tensor(candidate.factors, dtype=torch.float64)).to(self._buffer))
        self._rotary.attention_scaling = candidate.attention_factor
        total = count = 0.0
        for window in self._windows:
            losses = self._scorer.target_losses([window], [range(1, len(window))])
            total, count = total + float(losses.double().sum()), count + losses.numel()
        return total / count


def windows_of(
    codec: TextCodec, data: Sequence[str], length: int, count: int, seed: int
) -> tuple[list[list[int]], list]:
    """The first `length` tokens of `count` documents that are so long, in an order drawn from `seed`; and their names.

    Raises DataError when there are fewer. "pilot" is the built-in corpus that the pilot is tuned on, never what it is
    measured on.
    """
    windows: list[list[int]] = []
    names: list[str] = []
    for name, text in _texts(data, seed):
        tokens = codec.document(text) if len(text) >= length else []  # no token is less than a character
        if len(tokens) >= length:
            windows.append(tokens[:length])
            names.append(name)
        if len(windows) == count:
            return windows, names
    raise DataError(
        f"{len(windows)} documents of {', '.join(data)} have {length} tokens, and {count} are needed.\n"
        "  A candidate is judged on whole windows of the target.\n"
        "  Give longer texts, fewer --windows, or a shorter --to."
    )


def _texts(data: Sequence[str], seed: int) -> Iterator[tuple[str, str]]:
    if PILOT in data and not Path(PILOT).exists():
        yield from ((f"{PILOT}:{number}", text) for number, text in enumerate(training_texts(seed)))
    given = sources([one for one in data if one != PILOT or Path(one).exists()])
    named = [(document.name, document.text) for document in given.documents()] if given.files else []
    random.Random(seed).shuffle(named)
    yield from named
    for data_set in () if given.files else given.data_sets:
        yield from ((document.name, document.text) for document in data_set.documents())
