"""What a candidate is judged by: the loss of whole windows under its rotation, on a model that is loaded once."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ropewalk.errors import DataError, RopeError
from ropewalk.evals.documents import ScoredDocument, texts_of
from ropewalk.model.load import LoadedModel, TextCodec
from ropewalk.model.rotary import rotary_buffers
from ropewalk.model.scoring import Scorer
from ropewalk.pilot.corpus import PILOT, training_texts
from ropewalk.rope.frequencies import base_frequencies
from ropewalk.searching.evolution import Candidate
from ropewalk.text.documents import Document, documents
from ropewalk.text.sources import Sources, sources


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


@dataclass(frozen=True)
class TextsJudgedOn:
    """What the windows were cut from: each document as the record names it, and `inputs` for the record."""

    documents: list[dict[str, Any]]
    inputs: list[dict[str, Any]]


def windows_of(
    codec: TextCodec, data: Sequence[str], length: int, count: int, seed: int
) -> tuple[list[list[int]], TextsJudgedOn]:
    """The first `length` tokens of `count` documents that are so long, in an order drawn from `seed`; and which they are.

    Raises DataError when there are fewer, or when anything in `data` is not there. "pilot" is the built-in corpus that the
    pilot is tuned on, never what it is measured on.
    """
    builtin = PILOT in data and not Path(PILOT).exists()
    given = sources([one for one in data if not (builtin and one == PILOT)])
    found: list[ScoredDocument] = []
    for document in _drawn(given, builtin, seed):
        tokens = codec.document(document.text)
        if len(tokens) >= length:
            found.append(ScoredDocument(document.name, tokens[:length], document.sha256))
        if len(found) == count:
            return [one.tokens for one in found], TextsJudgedOn(texts_of(found), given.inputs())
    raise DataError(
        f"{len(found)} documents of {', '.join(data)} have {length} tokens, and {count} are needed.\n"
        "  A candidate is judged on whole windows of the target.\n"
        "  Give longer texts, fewer --windows, or a shorter --to."
    )


def _drawn(given: Sources, builtin: bool, seed: int) -> Iterator[Document]:
    """All documents, the next always from a source drawn at random: the files (shuffled), the built-in corpus, each data set.

    A data set may have no end, so it is read as far as it is drawn from.
    """
    rng = random.Random(seed)
    files = list(documents(given.files))
    rng.shuffle(files)
    live = [iter(files)] if files else []
    if builtin:
        live.append(Document(f"{PILOT}:{number}", text) for number, text in enumerate(training_texts(seed)))
    live += [data_set.documents() for data_set in given.data_sets]
    while live:
        source = rng.choice(live) if len(live) > 1 else live[0]
        try:
            yield next(source)
        except StopIteration:
            live.remove(source)
