"""Passkey documents, exact in tokens on any tokenizer: a key hidden in filler, then the question.

The wording of the task line, the filler, the key line and the question is the protocol of Landmark Attention
(arXiv 2305.16300) as used in section 3.3.2 of the Position Interpolation paper (arXiv 2306.15595). Peers count the
length in characters and miss it; here every piece is tokenized on its own and the filler is cut in tokens, so prompt
plus answer is exactly the length asked for.

What must never leak from training into evaluation is split here: keys by a hash (`is_evaluation_key`), fillers by
list (`PAPER_FILLER` is held out, training documents draw on `TRAINING_SENTENCES`).
"""

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ropewalk.errors import DataError

TASK = (
    "There is an important info hidden inside a lot of irrelevant text. Find it and memorize them. "
    "I will quiz you about the important information there.\n"
)
PAPER_FILLER = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
KEY_LINE = "\nThe pass key is {key}. Remember it. {key} is the pass key.\n"
QUESTION = "\nWhat is the pass key? The pass key is"

KEY_DIGITS = 5

TRAINING_SENTENCES = tuple(
    """
    A boat left the harbour. The road bends to the left. Rain fell all night. My brother plays the drum.
    Nobody opened the door. The kettle began to sing. We counted the stones. A dog slept near the gate.
    Snow covers the hill. The bread is still warm. She closed her book. Two birds sat on the wire.
    He lost a button. The clock struck nine. They walked along the river. An old map hung on the wall.
    The train was late. I found a coin. Our neighbour waters the roses. The lamp went out.
    You can hear the sea. The wind moved the curtain. Some apples fell down. The letter never came.
    It was a quiet street. The horse drank slowly. Every window was open. A child drew a circle.
    The soup needs salt. We painted the fence. The bell is made of brass. Nothing else happened.
    Leaves drift on the pond. The baker hums a tune. His coat was grey. The bridge is narrow.
    A ladder leans on the barn. The ink had dried. She mended the net. Cold water ran over the rocks.
    The market opens early. Fog hid the tower. They shared an orange. The path goes uphill.
    A spider crossed the table. The drawer was empty. He tied the rope. Many ships passed by.
    The cat watched the rain. Bees live in the oak. I forgot the number of the house. The garden is small.
    Smoke rose from the chimney. The mirror was cracked. We waited for the tide. Her voice was calm.
    """.replace("\n    ", " ")
    .strip()
    .replace(". ", ".|")
    .split("|")
)


class Tokenizer(Protocol):
    """What this module needs of a tokenizer: ids of a text, with no token added."""

    def encode(self, text: str) -> list[int]: ...


def is_evaluation_key(key: str) -> bool:
    """Whether this key belongs to evaluation; a quarter of all keys does, and none of them is ever trained on."""
    return hashlib.sha256(key.encode()).digest()[0] < 64


def random_key(rng: random.Random, *, evaluation: bool) -> str:
    """Five digits from the side of the split asked for."""
    while True:
        key = f"{rng.randrange(10**KEY_DIGITS):0{KEY_DIGITS}d}"
        if is_evaluation_key(key) == evaluation:
            return key


def training_filler(rng: random.Random) -> str:
    """A few sentences in random order, to be repeated; the paper's filler is not among them."""
    return " ".join(rng.sample(TRAINING_SENTENCES, rng.randint(3, 8)))


@dataclass(frozen=True)
class PasskeyDocument:
    """Token ids of prompt and answer; `distance` counts tokens from the start of the key line to the end of all."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    distance: int
    key: str

    @property
    def tokens(self) -> list[int]:
        return [*self.prompt, *self.answer]


class PasskeyWriter:
    """Writes passkey documents over one filler; tokenizes each piece once.

    `bos` holds the ids the tokenizer puts before a text (one or none). `filler` is a text to be repeated, or token ids
    that are repeated as they are.
    """

    def __init__(self, tokenizer: Tokenizer, *, bos: Sequence[int] = (), filler: str | Sequence[int] = PAPER_FILLER):
        self._encode = tokenizer.encode
        self._head = [*bos, *tokenizer.encode(TASK)]
        self._question = tokenizer.encode(QUESTION)
        unit = tokenizer.encode(filler + " ") if isinstance(filler, str) else list(filler)
        if not unit:
            raise DataError("the filler has no tokens.\n  Give a text that is not empty.")
        self._unit = unit

    def _answer(self, key: str) -> list[int]:
        whole = self._encode(f"{QUESTION} {key}")
        start = len(self._question)
        if whole[:start] != self._question or len(whole) == start:
            raise DataError(
                f"this tokenizer cannot write the answer {key!r} after the question as tokens of its own.\n"
                "  The passkey needs the question's tokens to stay the same when the answer follows.\n"
                "  Leave the passkey out: --tasks perplexity."
            )
        return whole[start:]

    def shortest(self, key: str = "0" * KEY_DIGITS) -> int:
        """Tokens of a document with no filler at all."""
        key_line = self._encode(KEY_LINE.format(key=key))
        return len(self._head) + len(key_line) + len(self._question) + len(self._answer(key))

    def distances(self, key: str, length: int) -> tuple[int, int]:
        """The nearest and the furthest distance that a key line can have in a document of `length` tokens."""
        return self.shortest(key) - len(self._head), length - len(self._head)

    def document(self, key: str, length: int, distance: int) -> PasskeyDocument:
        """A document of exactly `length` tokens, the answer included, whose key line starts `distance` before the end.

        The distance is clipped so that the key line lies between the task line and the question.
        Raises DataError when `length` is below `shortest(key)`.
        """
        key_line = self._encode(KEY_LINE.format(key=key))
        answer = self._answer(key)
        nearest, furthest = self.distances(key, length)
        if furthest < nearest:
            raise DataError(
                f"a passkey document of {length} tokens is too short.\n"
                f"  Its fixed parts alone are {self.shortest(key)} tokens with this tokenizer.\n"
                "  Ask for a longer one, or leave the passkey out: --tasks perplexity."
            )
        distance = min(max(distance, nearest), furthest)
        prompt = [
            *self._head,
            *self._filler(furthest - distance),
            *key_line,
            *self._filler(distance - nearest),
            *self._question,
        ]
        return PasskeyDocument(tuple(prompt), tuple(answer), distance, key)

    def _filler(self, count: int) -> list[int]:
        return (self._unit * (count // len(self._unit) + 1))[:count]
