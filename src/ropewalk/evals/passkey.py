"""Passkey retrieval and the effective window k_max, on the grid of the paper (arXiv 2306.15595, 3.3).

For a target of L' tokens: cells k_i = i L' / 32 for i = 1 .. 32, ten keys of five digits a cell. Prompt plus answer is
exactly L' tokens; the key line starts k_i tokens before the end, clipped to lie between the task line and the
question, and cells that clip to one place are measured once. Decoding is greedy; all five digits must be right.
k_max is the largest k with success of at least 20 % at every k' up to k; where the last cell passes it is L'.

The paper does not state the total length nor the decoding: these are the readings chosen here.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from ropewalk.errors import DataError
from ropewalk.model.layers import SharedStart
from ropewalk.model.load import TextCodec
from ropewalk.model.scoring import Scorer
from ropewalk.record import EvalResult
from ropewalk.text.retrieval import PAPER_FILLER, PasskeyDocument, PasskeyWriter, random_key

CELLS = 32
TRIALS = 10
THRESHOLD = 0.2
BATCH_TOKENS = 16_384
PROTOCOL = "passkey, 32 distances x 10 keys, greedy, exact length"


@dataclass(frozen=True)
class Cell:
    """One distance: the cells of the grid that clip to it, and the documents that measure it."""

    indices: tuple[int, ...]
    documents: tuple[PasskeyDocument, ...]

    @property
    def distance(self) -> int:
        return self.documents[0].distance


def fits(codec: TextCodec, target: int) -> bool:
    """Whether the fixed parts of the prompt fit into `target` tokens."""
    return PasskeyWriter(codec, bos=codec.bos).shortest() <= target


def grid(codec: TextCodec, target: int, seed: int, filler: str = PAPER_FILLER) -> list[Cell]:
    """The cells of the grid at `target` tokens, nearest first. Keys come from the evaluation side of the split.

    Raises DataError when the fixed parts of the prompt do not fit into `target`.
    """
    writer = PasskeyWriter(codec, bos=codec.bos, filler=filler)
    shortest = writer.shortest()
    if target < shortest:
        raise DataError(
            f"a passkey document needs {shortest} tokens with this tokenizer, and the longest of --lengths is {target}.\n"
            "  Give a longer one, or leave the passkey out: --tasks perplexity."
        )
    cells: list[Cell] = []
    for index in range(1, CELLS + 1):
        rng = random.Random(f"{seed}/{target}/{index}")
        asked = grid_distance(index, target)
        keys = [random_key(rng, evaluation=True) for _ in range(TRIALS)]
        documents = tuple(writer.document(key, target, asked) for key in keys)
        if cells and cells[-1].distance == documents[0].distance:
            cells[-1] = Cell((*cells[-1].indices, index), cells[-1].documents)
        else:
            cells.append(Cell((index,), documents))
    return cells


def longest_start(scorer: Scorer, cells: Sequence[Cell]) -> SharedStart | None:
    """The beginning that prompts share piece by piece: task line and filler, up to the nearest key."""
    nearest = cells[0].documents[0]
    return scorer.shared_start(nearest.prompt[: len(nearest.tokens) - nearest.distance])


def passed(scorer: Scorer, start: SharedStart | None, cell: Cell) -> int:
    """How many of the cell's keys greedy decoding finds."""
    hits = 0
    for answer in sorted({len(d.answer) for d in cell.documents}):
        alike = [d for d in cell.documents if len(d.answer) == answer]
        shared = min(start.length, *(len(d.tokens) - d.distance for d in alike)) if start else 0
        at_once = max(1, BATCH_TOKENS // (len(alike[0].tokens) - shared))
        for first in range(0, len(alike), at_once):
            suffixes = [d.tokens[shared:] for d in alike[first : first + at_once]]
            hits += sum(scorer.greedy_matches(start.first(shared) if start else None, suffixes, answer))
    return hits


def passkey_results(cells: Sequence[Cell], hits: Sequence[int], target: int, model_window: int) -> list[EvalResult]:
    """An accuracy row for each cell of the grid, nearest first, and one row for k_max.

    Rows of cells that clip to one place carry the one measurement; `measured_at` names the cell that was run.
    """
    beyond = target > model_window
    rows = [
        _accuracy(cell, index, found, target, beyond)
        for cell, found in zip(cells, hits, strict=True)
        for index in cell.indices
    ]
    reach = k_max([row.value or 0.0 for row in rows], target)
    return [
        *rows,
        EvalResult(
            name="passkey",
            protocol=PROTOCOL,
            length=target,
            metric="k_max",
            value=float(reach),
            stderr=None,
            count=sum(len(cell.documents) for cell in cells),
            higher_is_better=True,
            details={"threshold": THRESHOLD, "beyond_window": beyond,
                     "stderr_reason": "a threshold over cells, not a mean"},
        ),
    ]  # fmt: skip


def _accuracy(cell: Cell, index: int, hits: int, target: int, beyond: bool) -> EvalResult:
    trials = len(cell.documents)
    share = hits / trials
    return EvalResult(
        name="passkey",
        protocol=PROTOCOL,
        length=grid_distance(index, target),
        metric="accuracy",
        value=share,
        stderr=math.sqrt(share * (1 - share) / trials),
        count=trials,
        higher_is_better=True,
        details={
            "cell": index,
            "distance": cell.distance,
            "measured_at": grid_distance(cell.indices[0], target),
            "prompt_tokens": target,
            "interval_95": list(wilson_interval(hits, trials)),
            "beyond_window": beyond,
        },
    )


def grid_distance(index: int, target: int) -> int:
    """k_i = i L' / 32 tokens from the end, rounded down where 32 does not divide L'."""
    return index * target // CELLS


def k_max(shares: Sequence[float], target: int) -> int:
    """The last grid distance up to which every cell passes, from the shares of cells 1, 2, ...; 0 if the first fails.

    >>> k_max([1.0, 1.0, 0.2, 0.1] + [1.0] * 28, 3200)
    300
    """
    reach = 0
    for index, share in enumerate(shares, 1):
        if share < THRESHOLD:
            break
        reach = grid_distance(index, target)
    return reach


def wilson_interval(hits: int, trials: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's 95 % interval of a share; unlike the normal one it is right at 0 and 1.

    >>> [round(bound, 3) for bound in wilson_interval(10, 10)]
    [0.722, 1.0]
    """
    share = hits / trials
    centre = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    return max(0.0, centre - half), min(1.0, centre + half)
