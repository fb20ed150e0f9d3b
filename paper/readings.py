"""Numbers read from records: perplexities and their paired changes, keys found, and how they are written in a table."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from part import Cell
from printed import ORIGINAL, STRIDE

from ropewalk.evals.losses import LossTable, found
from ropewalk.evals.passkey import THRESHOLD
from ropewalk.evals.pieces import Pieces
from ropewalk.evals.windows import DEFINITIONS, Need
from ropewalk.record import EvalResult, Run, read_run

LARGEST = 700  # nats: e to more is beyond the range of numbers, as an evaluation takes it


@dataclass(frozen=True)
class Keys:
    """A passkey grid: k_max in tokens, and keys found of those hidden, in all and in each place, nearest first."""

    k_max: int
    found: int
    of: int
    hits: tuple[tuple[int, int], ...] = ()

    @property
    def cell(self) -> Cell:
        return Cell(str(self.k_max), f"{self.found} of {self.of} keys")


def perplexity_at(run: Run, length: int) -> EvalResult:
    """The paper's sliding perplexity at a window."""
    return next(row for row in run.results if row.name == "perplexity" and row.length == length)


def perplexities(run: Run) -> dict[int, float]:
    """Perplexity by window. One beyond the range of numbers is infinite."""
    return {row.length: math.inf if row.value is None else row.value for row in run.results if row.name == "perplexity"}


def perplexity_cell(run: Run, length: int) -> Cell:
    row = perplexity_at(run, length)
    if row.value is None:
        return Cell(short(None))
    return Cell(short(row.value), "" if row.stderr is None else f"± {short(row.stderr)}")


def keys_of(run: Run) -> Keys | None:
    """The passkey grid of an evaluation; None where its prompt did not fit. Cells that share a place count once."""
    rows = [row for row in run.results if row.name == "passkey" and row.metric == "accuracy"]
    reach = next((row for row in run.results if row.name == "passkey" and row.metric == "k_max"), None)
    if reach is None:
        return None
    once = {row.details["measured_at"]: row for row in rows}.values()
    hits = tuple((round((row.value or 0) * row.count), row.count) for row in once)
    return Keys(int(reach.value or 0), sum(found for found, _ in hits), sum(of for _, of in hits), hits)


def grouped(hits: Sequence[Sequence[int]], groups: int) -> list[tuple[int, int]]:
    """Adjacent places pooled into so many groups, as even as can be: keys found and hidden of each.

    Which place is in which group depends on nothing that was found.

    >>> grouped([(10, 10), (9, 10), (0, 10), (1, 10)], 2), grouped([(3, 10)], 8)
    ([(19, 20), (1, 20)], [(3, 10)])
    """
    count = min(groups, len(hits))
    ends = [len(hits) * group // count for group in range(count + 1)] if count else []
    pools = [hits[begin:end] for begin, end in pairwise(ends)]
    return [(sum(found for found, _ in pool), sum(of for _, of in pool)) for pool in pools]


def chance_of(found: int, of: int) -> float:
    """How likely so few keys or fewer are, of so many, where each is found with a chance of a fifth.

    >>> round(chance_of(1, 10), 3), round(chance_of(0, 20), 4)
    (0.376, 0.0115)
    """
    terms = (math.comb(of, k) * THRESHOLD**k * (1 - THRESHOLD) ** (of - k) for k in range(found + 1))
    return math.fsum(terms)


def document_losses(folder: Path, length: int) -> list[tuple[float, int]]:
    """Sum of losses and count of each document under the sliding window of `length`, from an evaluation's table."""
    run = read_run(folder)
    table = LossTable(folder, Pieces(folder / "pieces.jsonl"))
    windows: dict[int, dict[int, dict[range, np.ndarray]]] = {}
    for name in table.names():
        _, lengths, number, *_ = name.split("/")
        if str(length) in lengths.split("-"):  # a rotation that depends on the length is read for each anew
            windows.setdefault(int(number), {}).update(table.windows(name))
    need = Need(DEFINITIONS["sliding"], length, run.resolved["stride"])
    sums = []
    for number, document in enumerate(run.resolved["documents"]):
        parts = [
            found(windows[number][begin], need.targets(number, begin, document["tokens"]))
            for begin in need.begins(number, document["tokens"])
        ]
        sums.append((math.fsum(float(part.sum(dtype=np.float64)) for part in parts), sum(map(len, parts))))
    return sums


@dataclass(frozen=True)
class Change:
    """The difference of two mean losses, nats a token, on the same documents; its error is over them, paired.

    Without an error, which one document does not have, nothing is told apart.
    """

    nats: float
    error: float | None

    @property
    def ratio(self) -> float:
        """Of the perplexities; infinite beyond the range of numbers."""
        return math.exp(self.nats) if self.nats < LARGEST else math.inf

    @property
    def sign(self) -> int:
        """1 for a rise and -1 for a fall, by two standard errors; 0 where it is not told apart from no change."""
        if self.error is None or abs(self.nats) <= 2 * self.error:
            return 0
        return 1 if self.nats > 0 else -1

    @property
    def cell(self) -> Cell:
        if math.isinf(self.ratio):
            return Cell(short(None))
        return Cell(f"{self.ratio:.3f}", "" if self.error is None else f"± {self.ratio * self.error:.3f}")

    def at_most(self, bound: float) -> bool | None:
        """Whether the ratio is at most `bound`, by two standard errors; None where it cannot be told."""
        if self.error is None:
            return None
        away, twice = math.log(bound) - self.nats, 2 * self.error
        return True if away >= twice else False if away < -twice else None

    def plain(self) -> dict[str, Any]:
        return {"nats": self.nats, "error": self.error}


def change(before: Sequence[tuple[float, int]], after: Sequence[tuple[float, int]]) -> Change:
    """From `before` to `after`, sums of losses and counts by document, in the same order.

    The mean is over all tokens, so a long document weighs more, in the error too: it is the ratio estimator's
    (`evals.perplexity.clustered_error`), of each document's share of the difference. Documents are few and differ from
    each other more than two models on one of them, so the two residuals of a document are taken together.
    """
    totals = [sum(count for _, count in sums) for sums in (before, after)]
    means = [math.fsum(loss for loss, _ in sums) / total for sums, total in zip((before, after), totals, strict=True)]
    residuals = [
        (b - means[1] * m) / totals[1] - (a - means[0] * n) / totals[0]
        for (a, n), (b, m) in zip(before, after, strict=True)
        if n or m
    ]
    count, spread = len(residuals), math.fsum(residual**2 for residual in residuals)
    return Change(means[1] - means[0], math.sqrt(spread * count / (count - 1)) if count > 1 else None)


def direction(ours: Change, theirs: float) -> str:
    """Whether a change goes the paper's way, of whose perplexities `theirs` is the ratio.

    >>> direction(Change(0.2, 0.02), 1.05), direction(Change(0.2, 0.02), 0.99), direction(Change(0.02, 0.02), 0.99)
    ('agrees', 'does not agree', 'not told apart')
    """
    if theirs == 1:
        return "the paper's has none"
    if ours.sign == 0:
        return "not told apart"
    return "agrees" if (ours.sign > 0) == (theirs > 1) else "does not agree"


def of_stride(window: int, stride: int) -> str:
    """How far windows slide, and what that makes of the base's level where it is another share than the paper's."""
    said = f"Windows slide by {stride} tokens"
    if stride * ORIGINAL == STRIDE * window:
        return f"{said}."
    within = "lie side by side" if stride >= window else f"slide by {stride / window:.2g} of their length"
    return (
        f"{said}: those of {window} {within}, and a token there has {window - min(stride, window) // 2} before it in the mean. "
        f"The paper's {ORIGINAL} slide by {STRIDE}, an eighth, which leaves {ORIGINAL - STRIDE // 2}: our base is judged within its own "
        "window on a smaller share of it, so its level there is the easier one to reach."
    )


ERRORS = "Two standard errors hold for about 90 % over six documents and 93 % over twelve, not for 95 %."


def short(value: float | None) -> str:
    """Three decimals below 10, two below 100, none from 1,000. None, as a record has it, and infinity are beyond numbers.

    >>> short(9.2649), short(50.491), short(1234.5), short(None)
    ('9.265', '50.49', '1,234', '> 1e300')
    """
    if value is None or math.isinf(value):
        return "> 1e300"
    if value < 10:
        return f"{value:.3f}"
    return f"{value:.2f}" if value < 100 else f"{value:.1f}" if value < 1000 else f"{value:,.0f}"
