"""Training sequences: rows of one length, any of them by its number.

A row is a pure function of the texts, the seed and its number, so that a resumed run reads what it would have read.
What stands in a row and where it stands are drawn apart: a number has the same text under every recipe of one length.

    TokenRows      texts joined and cut, as in the paper; positions as the recipe has them
    SummaryRows    a report and its summary each
"""

import hashlib
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from ropewalk.errors import DataError
from ropewalk.text.summaries import Codec, Room, SummaryDocument, summary_ids, summary_prompt


@dataclass(frozen=True)
class Row:
    """One training sequence; every array is (length,).

    `weights` (float32) is what each token counts as a target beside the others; the first is never one, whatever its
    weight. `positions` (int64) increase; None: 0 .. length - 1. `documents` (int32, nondecreasing) is the number of the
    document that each token belongs to, and attention stays inside a document; None: all are one. A row with a `piece`
    is read as pieces of so many tokens, each a text of its own from position 0; it divides the length.
    """

    tokens: np.ndarray
    weights: np.ndarray
    positions: np.ndarray | None = None
    documents: np.ndarray | None = None
    piece: int | None = None


class Rows(Protocol):
    """What a run reads: a row by its number, how many make an epoch, and a fingerprint of all that decides them."""

    @property
    def count(self) -> int: ...

    def row(self, number: int) -> Row: ...

    def digest(self) -> str: ...


MakeRow = Callable[[int, random.Random], Row]  # of that length


@dataclass
class _Order:
    """The places of an epoch, shuffled anew each time; the one in use is kept."""

    seed: int
    count: int
    _kept: tuple[int, np.ndarray] = (-1, np.empty(0, dtype=np.int64))

    def place(self, number: int) -> int:
        epoch, place = divmod(number, self.count)
        if self._kept[0] != epoch:
            self._kept = (epoch, np.random.default_rng([self.seed, epoch]).permutation(self.count))
        return int(self._kept[1][place])


@dataclass
class TokenRows:
    """Rows of `length` tokens, cut from `tokens` and shuffled anew each epoch; a share of them made by `retrieval`.

    `starts` are the places in `tokens` where documents begin; None: documents are concatenated, as in the paper, and
    attention reaches over their ends. With them, each token knows its document, and the first of a document is no
    target, since nothing before it tells it. Positions run on all the same, they do not begin anew with a document:
    transformers takes positions that restart for packed sequences and cuts attention there by itself, which would be
    done twice or not at all; and positions beyond the original window are what tuning is for, which no document
    shorter than it would ever see.

    `chunks` above 1 makes positions skip, up to `reach` (see `skipped_positions`). `mixed` is the share of rows that
    are read as pieces of `piece` tokens: exactly that share of any run of numbers, give or take one.
    """

    tokens: np.ndarray
    length: int
    seed: int
    retrieval: MakeRow | None = None
    retrieval_share: float = 0.0
    starts: np.ndarray | None = None
    chunks: int = 1
    reach: int = 0
    mixed: float = 0.0
    piece: int = 0
    _order: _Order = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._order = _Order(self.seed, self.count)

    @property
    def count(self) -> int:
        """Rows of one epoch."""
        return len(self.tokens) // self.length

    def row(self, number: int) -> Row:
        """Row `number` of the run."""
        piece = self.piece if self._is_pieces(number) else None
        rng = random.Random(f"{self.seed}/{number}")
        if self.retrieval is not None and rng.random() < self.retrieval_share:
            row = self._retrieved(piece or self.length, rng)
        else:
            row = self._text(self._order.place(number) * self.length)
        row = replace(row, weights=_without_firsts(row, piece), piece=piece)
        if self.chunks > 1:
            places = random.Random(f"{self.seed}/{number}/positions")
            row = replace(row, positions=skipped_positions(self.length, self.reach, self.chunks, places))
        return row

    def _is_pieces(self, number: int) -> bool:
        return int((number + 1) * self.mixed) > int(number * self.mixed)

    def _text(self, start: int) -> Row:
        tokens = self.tokens[start : start + self.length].astype(np.int64)
        weights = np.ones(self.length, dtype=np.float32)
        if self.starts is None:
            return Row(tokens, weights)
        documents = np.searchsorted(self.starts, np.arange(start, start + self.length), side="right")
        return Row(tokens, weights, documents=(documents - documents[0]).astype(np.int32))

    def _retrieved(self, size: int, rng: random.Random) -> Row:
        assert self.retrieval is not None
        row = joined_rows([self.retrieval(size, rng) for _ in range(self.length // size)])
        if self.starts is None:
            return replace(row, documents=None)
        return row if row.documents is not None else replace(row, documents=np.zeros(self.length, dtype=np.int32))

    def digest(self) -> str:
        """Fingerprint of the texts as tokens and of all else that decides rows: a run is only resumed on the same."""
        digest = hashlib.sha256(self.tokens.tobytes())
        if self.starts is not None:
            digest.update(self.starts.tobytes())
        settings = (self.length, self.seed, self.retrieval_share, self.chunks, self.reach, self.mixed, self.piece)
        digest.update(repr((settings, self.starts is not None)).encode())
        return digest.hexdigest()


@dataclass
class SummaryRows:
    """A report and its summary each, in an order of its own each epoch; the prompt is no target, nor what fills a row.

    The prompt is exactly what `evaluate` asks with. After the summary comes `end`, the tokenizer's end of a text, so
    that the model learns to stop. Texts are tokenized when they are asked for: all of them at once would take longer
    than the steps they are for.
    """

    codec: Codec
    documents: Sequence[SummaryDocument]
    room: Room
    end: list[int]
    seed: int
    _order: _Order = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._order = _Order(self.seed, self.count)

    @property
    def count(self) -> int:
        return len(self.documents)

    def row(self, number: int) -> Row:
        """Row `number` of the run; filled up behind with token 0, which nothing looks at."""
        document = self.documents[self._order.place(number)]
        prompt, _ = summary_prompt(self.codec, document.report, self.room)
        summary = summary_ids(self.codec, document.summary, self.end, self.room)
        tokens = np.zeros(self.room.window, dtype=np.int64)
        weights = np.zeros(self.room.window, dtype=np.float32)
        whole = len(prompt) + len(summary)
        tokens[:whole] = [*prompt, *summary]
        weights[len(prompt) : whole] = 1.0
        return Row(tokens, weights)

    def digest(self) -> str:
        """Fingerprint of the texts, the seed and the room: a run is only resumed on the same."""
        digest = hashlib.sha256(repr((self.seed, self.room, self.end)).encode())
        for document in self.documents:
            digest.update(repr((document.report, document.summary)).encode("utf-8", "surrogatepass"))
        return digest.hexdigest()


def skipped_positions(length: int, reach: int, chunks: int, rng: random.Random) -> np.ndarray:
    """Increasing positions of a row, (length,), from 0 and below `reach`: those of chunks with a skip before each.

    PoSE (arXiv 2309.10400, 3): the row is cut at random places, the first chunk stays where it is, and each later one
    is moved by u_i, drawn evenly from u_(i-1) .. reach - length. So every distance up to reach - 1 can occur. The text
    is not skipped: chunks are what stands beside each other, the plainest of the paper's choices of content.

    >>> skipped_positions(6, 100, 2, random.Random(0)).tolist()
    [0, 1, 2, 3, 57, 58]
    """
    cuts = sorted(rng.sample(range(1, length), chunks - 1))
    positions = np.arange(length, dtype=np.int64)
    skipped = 0
    for cut in cuts:
        more = rng.randint(skipped, reach - length) - skipped
        positions[cut:] += more
        skipped += more
    return positions


def _without_firsts(row: Row, piece: int | None) -> np.ndarray:
    """The weights, zero for the first token of each document and each piece: nothing before it tells it."""
    weights = row.weights.copy()
    if row.documents is not None:
        weights[1:][np.diff(row.documents) > 0] = 0.0
    if piece:
        weights[::piece] = 0.0
    return weights


def joined_rows(rows: Sequence[Row]) -> Row:
    """Rows one after the other as one, their documents numbered on."""
    if len(rows) == 1:
        return rows[0]
    documents: list[np.ndarray] = []
    for row in rows:
        own = np.zeros(len(row.tokens), dtype=np.int32) if row.documents is None else row.documents
        documents.append(own + (documents[-1][-1] + 1 if documents else 0))
    return Row(
        np.concatenate([row.tokens for row in rows]),
        np.concatenate([row.weights for row in rows]),
        documents=np.concatenate(documents).astype(np.int32),
    )


def joined_tokens(documents: Iterable[list[int]], needed: int, length: int, source: str) -> np.ndarray:
    """The documents' tokens one after the other, until there are `needed`; int32.

    Raises DataError when they do not fill one row of `length`.
    """
    parts: list[np.ndarray] = []
    total = 0
    for tokens in documents:
        parts.append(np.array(tokens, dtype=np.int32))
        total += len(tokens)
        if total >= needed:
            break
    if total < length:
        raise DataError(
            f"the text in {source} is {total} tokens, shorter than one training sequence of {length}.\n"
            "  Training at a window needs at least that much text.\n"
            "  Give more text with --data, or a shorter --length."
        )
    return np.concatenate(parts)
