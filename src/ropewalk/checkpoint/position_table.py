"""Learned position tables (GPT-2, OPT): what a config says of one, and how a longer one is made.

Position Interpolation without rotation: position i of the longer window is read at i L / L' of the table, as positions
are in arXiv 2306.15595, eq. 4; between two rows the straight line, as vision transformers resample theirs for larger
pictures (arXiv 2010.11929, 3.2; there in two dimensions). Numbers are numpy's: no framework is needed.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ropewalk.checkpoint.values import first_said, whole
from ropewalk.errors import RopeError
from ropewalk.rope.spec import Window


@dataclass(frozen=True)
class TableKind:
    """How a model type has its table: the end of the tensor's name, rows before position 0, the config's words."""

    tensor: str
    offset: int
    window_key: str
    aliases: tuple[str, ...] = ()  # older words for the window; one that is there must agree, none is added


TABLES: dict[str, TableKind] = {
    "gpt2": TableKind("wpe.weight", 0, "n_positions", ("n_ctx", "max_position_embeddings")),
    # the first two rows were meant for a padding token, and positions are looked up two rows further down
    "opt": TableKind("embed_positions.weight", 2, "max_position_embeddings"),
}


@dataclass(frozen=True)
class LearnedTable:
    """What takes RopeSpec's place for a model with a learned table: its window, and the rows before it."""

    window: Window
    kind: TableKind

    def in_words(self) -> str:
        if self.window.target == self.window.original:
            return f"a learned table of {self.window.original} positions"
        return f"a learned table of {self.window.original} positions, resampled to {self.window.target}"

    def for_record(self) -> dict[str, Any]:
        return {
            "original_window": self.window.original,
            "window": self.window.target,
            "rows_before": self.kind.offset,
        }


def table_of(config: dict[str, Any], source: str) -> LearnedTable | None:
    """The learned table that a config speaks of; None for a model type without one that is known here."""
    kind = TABLES.get(str(config.get("model_type")))
    if kind is None:
        return None
    said = first_said(config, (kind.window_key, *kind.aliases))
    rows = whole(said, kind.window_key, source, "a whole number of positions")
    return LearnedTable(Window(rows, rows), kind)


def stretched(table: LearnedTable, target: int) -> LearnedTable:
    """The table for `target` tokens. Raises RopeError unless that is above its window."""
    if isinstance(target, bool) or not isinstance(target, int) or target <= table.window.target:
        raise RopeError(
            f"the target of {str(target)[:40]} tokens is not above the table of {table.window.target} positions.\n"
            f"  The window was read from {table.kind.window_key} in config.json.\n"
            f"  Give a longer target, such as --to {2 * table.window.target}."
        )
    return LearnedTable(Window(table.window.target, target), table.kind)


def config_with(config: dict[str, Any], table: LearnedTable) -> dict[str, Any]:
    """The config with the table's window under every key that says it; all others stay."""
    there = [key for key in table.kind.aliases if key in config]
    return config | {key: table.window.target for key in (table.kind.window_key, *there)}


def resampled(rows: np.ndarray, target: int, offset: int = 0) -> np.ndarray:
    """`target` rows in place of the (L, D) ones, the first `offset` kept as they are; float64.

    Row i is read at i L / L', so that with a whole stretch r every r-th row is one of the old ones. Beyond the last row
    there is nothing to draw a line to: what would be read there, less than one row further, is the last row.

    >>> resampled(np.array([[0.0], [1.0], [4.0]]), 6).ravel().tolist()
    [0.0, 0.5, 1.0, 2.5, 4.0, 4.0]
    """
    fixed, old = rows[:offset].astype(np.float64), rows[offset:].astype(np.float64)
    at = np.arange(target) * len(old) / target
    low = np.minimum(np.floor(at).astype(int), len(old) - 1)
    share = (at - low)[:, None]
    return np.concatenate([fixed, (1 - share) * old[low] + share * old[np.minimum(low + 1, len(old) - 1)]])
