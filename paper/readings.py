"""Numbers read from records: perplexities and their paired changes, keys found, and how they are written in a table."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from part import Cell

from ropewalk.evals.losses import LossTable, found
from ropewalk.evals.passkey import THRESHOLD
from ropewalk.evals.pieces import Pieces
from ropewalk.evals.windows import DEFINITIONS, Need
from ropewalk.record import EvalResult, Run, read_run


@dataclass(frozen=True)
class Keys:
    """A passkey grid: k_max in tokens, how many keys were found of how many, and the same of the cells below a fifth."""

    k_max: int
    found: int
    of: int
    missed_found: int = 0
    missed_of: int = 0

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
        return Cell("> 1e300")
    return Cell(short(row.value), "" if row.stderr is None else f"± {short(row.stderr)}")


def keys_of(run: Run) -> Keys | None:
    """The passkey grid of an evaluation; None where its prompt did not fit. Cells that share a place count once."""
    rows = [row for row in run.results if row.name == "passkey" and row.metric == "accuracy"]
    reach = next((row for row in run.results if row.name == "passkey" and row.metric == "k_max"), None)
    if reach is None:
        return None
    once = {row.details["measured_at"]: row for row in rows}.values()
    missed = [row for row in once if (row.value or 0) < THRESHOLD]
    return Keys(int(reach.value or 0), *_counted(once), *_counted(missed))


def _counted(rows: Iterable[EvalResult]) -> tuple[int, int]:
    """Keys found, and hidden."""
    held = list(rows)
    return sum(round((row.value or 0) * row.count) for row in held), sum(row.count for row in held)


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
        windows.setdefault(int(name.split("/")[2]), {}).update(table.windows(name))
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
    """The difference of two mean losses, nats a token, on the same documents; its error is over their differences."""

    nats: float
    error: float | None

    @property
    def ratio(self) -> float:
        """Of the perplexities."""
        return math.exp(self.nats)

    @property
    def cell(self) -> Cell:
        error = "" if self.error is None else f"± {self.ratio * self.error:.3f}"
        return Cell(f"{self.ratio:.3f}", error)

    def at_most(self, bound: float) -> bool | None:
        """Whether the ratio is at most `bound`, by two standard errors; None where it cannot be told."""
        away, twice = math.log(bound) - self.nats, 2 * (self.error or 0.0)
        return True if away >= twice else False if away < -twice else None

    def plain(self) -> dict[str, Any]:
        return {"nats": self.nats, "error": self.error}


def change(before: Sequence[tuple[float, int]], after: Sequence[tuple[float, int]]) -> Change:
    """From `before` to `after`, sums of losses and counts by document, in the same order.

    The mean is over all tokens. Documents are few and differ from each other more than two models on one of them, so
    the error is that of the documents' own differences.
    """
    means = [math.fsum(loss for loss, _ in sums) / sum(count for _, count in sums) for sums in (before, after)]
    differences = [b / m - a / n for (a, n), (b, m) in zip(before, after, strict=True)]
    count = len(differences)
    error = float(np.std(differences, ddof=1)) / math.sqrt(count) if count > 1 else None
    return Change(means[1] - means[0], error)


def short(value: float) -> str:
    """Three decimals below 10, two below 100, none from 1,000.

    >>> short(9.2649), short(50.491), short(1234.5)
    ('9.265', '50.49', '1,234')
    """
    if value < 10:
        return f"{value:.3f}"
    return f"{value:.2f}" if value < 100 else f"{value:.1f}" if value < 1000 else f"{value:,.0f}"
