"""Training sequences: documents concatenated as in the paper, cut into rows of one length; any row by its number.

A row is a pure function of the texts, the seed and its number, so that a resumed run reads what it would have read.
"""

import hashlib
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from ropewalk.errors import DataError


@dataclass(frozen=True)
class Row:
    """One training sequence: token ids, and what each counts as a target beside the others; both (length,).

    The first token is never a target, whatever its weight.
    """

    tokens: np.ndarray
    weights: np.ndarray


MakeRow = Callable[[int, random.Random], Row]  # of that length


@dataclass
class TokenRows:
    """Rows of `length` tokens, shuffled anew each epoch; a share of them made by `retrieval`, if there is one."""

    tokens: np.ndarray
    length: int
    seed: int
    retrieval: MakeRow | None = None
    retrieval_share: float = 0.0
    _order: tuple[int, np.ndarray] = field(default=(-1, np.empty(0, dtype=np.int64)), repr=False)

    @property
    def count(self) -> int:
        """Rows of one epoch."""
        return len(self.tokens) // self.length

    def row(self, number: int) -> Row:
        """Row `number` of the run."""
        rng = random.Random(f"{self.seed}/{number}")
        if self.retrieval is not None and rng.random() < self.retrieval_share:
            return self.retrieval(self.length, rng)
        epoch, place = divmod(number, self.count)
        if self._order[0] != epoch:
            self._order = (epoch, np.random.default_rng([self.seed, epoch]).permutation(self.count))
        start = int(self._order[1][place]) * self.length
        tokens = self.tokens[start : start + self.length].astype(np.int64)
        return Row(tokens, np.ones(self.length, dtype=np.float32))

    def digest(self) -> str:
        """Fingerprint of the texts as tokens: a run is only resumed on the same."""
        return hashlib.sha256(self.tokens.tobytes()).hexdigest()


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
