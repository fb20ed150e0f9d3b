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
from itertools import accumulate

from ropewalk.errors import DataError
from ropewalk.evals.pieces import Pieces
from ropewalk.model.load import TextCodec
from ropewalk.model.scoring import Scorer
from ropewalk.progress import Progress
from ropewalk.record import EvalResult
from ropewalk.text.retrieval import PAPER_FILLER, PasskeyDocument, PasskeyWriter, random_key

CELLS = 32
TRIALS = 10
THRESHOLD = 0.2
DEPTHS = 11
PROTOCOL = "passkey, 32 distances x 10 keys, greedy, exact length"
NEAR_START_PROTOCOL = "passkey, key after the task line, prompt as long as the distance, 32 distances x 10 keys, greedy"
ANYWHERE_PROTOCOL = "passkey, 11 depths x 10 keys, greedy, exact length"


@dataclass(frozen=True)
class Cell:
    """One distance: the cells of the grid that clip to it, and the documents that measure it."""

    indices: tuple[int, ...]
    documents: tuple[PasskeyDocument, ...]

    @property
    def distance(self) -> int:
        return self.documents[0].distance

    @property
    def tokens(self) -> int:
        return len(self.documents[0].tokens)


def fits(codec: TextCodec, target: int) -> bool:
    """Whether the fixed parts of the prompt fit into `target` tokens."""
    return PasskeyWriter(codec, bos=codec.bos).shortest() <= target


def grid(codec: TextCodec, target: int, seed: int, filler: str = PAPER_FILLER) -> list[Cell]:
    """The cells of the grid at `target` tokens, nearest first. Keys come from the evaluation side of the split.

    Raises DataError when the fixed parts of the prompt do not fit into `target`.
    """
    writer = PasskeyWriter(codec, bos=codec.bos, filler=filler)
    _require_room(writer, target)
    cells: list[Cell] = []
    for index in range(1, CELLS + 1):
        rng = random.Random(f"{seed}/{target}/{index}")
        asked = grid_distance(index, target)
        keys = [random_key(rng, evaluation=True) for _ in range(TRIALS)]
        _add(cells, index, tuple(writer.document(key, target, asked) for key in keys))
    return cells


def _require_room(writer: PasskeyWriter, target: int) -> None:
    shortest = writer.shortest()
    if target < shortest:
        raise DataError(
            f"a passkey document needs {shortest} tokens with this tokenizer, and the longest of --lengths is {target}.\n"
            "  Give a longer one, or leave the passkey out: --tasks perplexity."
        )


def near_start_grid(codec: TextCodec, target: int, seed: int, filler: str = PAPER_FILLER) -> list[Cell]:
    """The same distances with the key right after the task line: a prompt is as long as its distance needs.

    All cells hide the same ten keys, so a prompt begins as the next longer one does. The distance is the paper's, the
    length of the prompt is not: near keys stand in short prompts, within the window the model was made for.
    """
    writer = PasskeyWriter(codec, bos=codec.bos, filler=filler)
    _require_room(writer, target)
    rng = random.Random(f"{seed}/{target}/near-start")
    keys = [random_key(rng, evaluation=True) for _ in range(TRIALS)]
    task_line = target - writer.distances(keys[0], target)[1]
    cells: list[Cell] = []
    for index in range(1, CELLS + 1):
        asked = min(grid_distance(index, target), target - task_line)
        documents = tuple(writer.document(key, max(task_line + asked, writer.shortest(key)), asked) for key in keys)
        _add(cells, index, documents)
    return cells


def _add(cells: list[Cell], index: int, documents: tuple[PasskeyDocument, ...]) -> None:
    if cells and cells[-1].distance == documents[0].distance:
        cells[-1] = Cell((*cells[-1].indices, index), cells[-1].documents)
    else:
        cells.append(Cell((index,), documents))


def anywhere_grid(codec: TextCodec, lengths: Sequence[int], seed: int) -> list[Cell]:
    """Keys at eleven depths of prompts of several lengths; `indices` holds the depth in tenths, 0 right after the task."""
    writer = PasskeyWriter(codec, bos=codec.bos)
    _require_room(writer, max(lengths))
    cells: list[Cell] = []
    for length in sorted(lengths):
        if length < writer.shortest():
            continue
        for depth in range(DEPTHS):
            rng = random.Random(f"{seed}/{length}/{depth}/anywhere")
            keys = [random_key(rng, evaluation=True) for _ in range(TRIALS)]
            nearest, furthest = writer.distances(keys[0], length)
            distance = furthest - round(depth / (DEPTHS - 1) * (furthest - nearest))
            cells.append(Cell((depth,), tuple(writer.document(key, length, distance) for key in keys)))
    return cells


def measured_hits(scorer: Scorer, cells: Sequence[Cell], title: str, pieces: Pieces, progress: Progress) -> list[int]:
    """How many of each cell's keys greedy decoding finds. A piece a key; what is there already is not done again."""
    names = [f"{title}/{n}/{m}" for n, cell in enumerate(cells) for m in range(len(cell.documents))]
    documents = [document for cell in cells for document in cell.documents]
    # a cell's prompts begin alike and are read together
    todo = pieces.todo(names, [n for n, cell in enumerate(cells) for _ in cell.documents])
    with progress.bar(title, len(documents), done=len(names) - len(todo)) as bar:
        prompts, answers = [d.tokens for d in documents], [len(d.answer) for d in documents]
        for index, scored in scorer.each_prompt(prompts, answers, skip=lambda i: names[i] not in todo):
            if names[index] in todo:
                pieces.add(names[index], bool(scored.greedy.all()))
                bar.advance()
    pieces.meet()
    ends = list(accumulate(len(cell.documents) for cell in cells))
    starts = [0, *ends]
    return [sum(pieces[name] for name in names[a:b]) for a, b in zip(starts, ends, strict=False)]


def passkey_results(
    cells: Sequence[Cell],
    hits: Sequence[int],
    target: int,
    model_window: int,
    name: str = "passkey",
    protocol: str = PROTOCOL,
) -> list[EvalResult]:
    """An accuracy row for each cell of the grid, nearest first, and one row for k_max.

    Rows of cells that clip to one place carry the one measurement; `measured_at` names the cell that was run.
    """
    rows = [
        share_row(
            name, protocol, grid_distance(index, target), found, len(cell.documents),
            {"cell": index, "distance": cell.distance, "measured_at": grid_distance(cell.indices[0], target),
             "prompt_tokens": cell.tokens, "beyond_window": cell.tokens > model_window},
        )
        for cell, found in zip(cells, hits, strict=True)
        for index in cell.indices
    ]  # fmt: skip
    reach = k_max([row.value or 0.0 for row in rows], target)
    return [
        *rows,
        EvalResult(
            name=name,
            protocol=protocol,
            length=target,
            metric="k_max",
            value=float(reach),
            stderr=None,
            count=sum(len(cell.documents) for cell in cells),
            higher_is_better=True,
            details={"threshold": THRESHOLD, "beyond_window": target > model_window,
                     "stderr_reason": "a threshold over cells, not a mean"},
        ),
    ]  # fmt: skip


def anywhere_results(cells: Sequence[Cell], hits: Sequence[int], model_window: int) -> list[EvalResult]:
    """An accuracy row for each length and depth; `length` is that of the prompt."""
    return [
        share_row(
            "passkey-anywhere", ANYWHERE_PROTOCOL, len(cell.documents[0].tokens), found, len(cell.documents),
            {"depth": cell.indices[0] / (DEPTHS - 1), "distance": cell.distance,
             "beyond_window": len(cell.documents[0].tokens) > model_window},
        )
        for cell, found in zip(cells, hits, strict=True)
    ]  # fmt: skip


def share_row(name: str, protocol: str, length: int, hits: int, trials: int, details: dict[str, object]) -> EvalResult:
    """An accuracy: hits of trials, with Wilson's interval beside the standard error."""
    share = hits / trials
    return EvalResult(
        name=name,
        protocol=protocol,
        length=length,
        metric="accuracy",
        value=share,
        stderr=math.sqrt(share * (1 - share) / trials),
        count=trials,
        higher_is_better=True,
        details=details | {"interval_95": list(wilson_interval(hits, trials))},
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
