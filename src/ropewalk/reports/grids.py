"""Passkey grids: which rows of a record belong to which grid, and where a distance lies in one."""

from collections.abc import Sequence
from dataclasses import dataclass

from ropewalk.record import EvalResult
from ropewalk.reports.sources import number, whole


@dataclass(frozen=True)
class Grid:
    """One passkey grid, its cells by distance. `k_max` is None where the record has none."""

    target: int
    cells: tuple[EvalResult, ...]
    k_max: int | None


def grids(rows: Sequence[EvalResult]) -> list[Grid]:
    """The passkey grids of one record. Its k_max rows say how many there are, and to which length each goes."""
    cells = [row for row in rows if row.metric == "accuracy" and whole(row.length) is not None]
    ends = {target: row for row in rows if row.metric == "k_max" and (target := whole(row.length)) is not None}
    if not cells:
        return []
    if not ends:
        return [_grid(max(cell.length for cell in cells), cells, None)]
    if len(ends) == 1:
        return [_grid(target, cells, row) for target, row in ends.items()]
    # Several grids in one record: each has its cells next to its own k_max row, so the order of rows tells them apart.
    leading = rows[0].metric == "k_max"
    found, open_cells = [], []
    for row in reversed(rows) if leading else rows:
        if row.metric == "accuracy" and whole(row.length) is not None:
            open_cells.append(row)
        elif (target := whole(row.length)) is not None:
            found.append(_grid(target, open_cells, row))
            open_cells = []
    return [grid for grid in found if grid.cells]


def _grid(target: int, cells: Sequence[EvalResult], end: EvalResult | None) -> Grid:
    k_max = number(end.value) if end else None
    ordered = tuple(sorted(cells, key=lambda cell: cell.length))
    return Grid(target, ordered, None if k_max is None else int(k_max))


def columns_to(grid: Grid, distance: float) -> float:
    """How many columns lie within `distance`, a fraction counted along the column it falls in.

    Distances may repeat at the near end, where a key cannot stand closer to the question than its own line.
    """
    ends = [cell.length for cell in grid.cells]
    inside = sum(end <= distance for end in ends)
    if inside == len(ends):
        return float(inside)
    before = ends[inside - 1] if inside else 0
    return inside + max(0.0, distance - before) / max(1, ends[inside] - before)
