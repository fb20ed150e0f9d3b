"""Rows of a step as the batches that go through the model: rows of one shape together, so many tokens at a time."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from ropewalk.model.engine import Batch
from ropewalk.train.rows import Row

# R rows of one width, L tokens of a row


def counted(rows: Sequence[Row]) -> tuple[float, int]:
    """The sum of all targets' weights, and how many targets have one."""
    weights = [_pieces(row, row.weights)[:, 1:] for row in rows]
    return float(sum(part.sum(dtype=np.float64) for part in weights)), int(sum((part > 0).sum() for part in weights))


def batches(
    rows: Sequence[Row], tokens_at_once: int, device: torch.device, total: float | None = None
) -> Iterator[Batch]:
    """Every row, or each of its pieces, once. Shares are weights over `total`, the sum of all targets' weights (None:
    of these rows), so that the sum of all batches' losses is the weighted mean over targets, however they are cut up."""
    total = counted(rows)[0] if total is None else total
    widths: dict[int, list[Row]] = {}
    for row in rows:
        widths.setdefault(row.piece or len(row.tokens), []).append(row)
    for width, alike in widths.items():
        tokens_RL = _stacked(alike, "tokens")
        shares_RL = _stacked(alike, "weights") / np.float32(total)
        positions_RL = None
        if any(row.positions is not None for row in alike):
            plain = np.arange(width, dtype=np.int64)
            positions_RL = np.stack([plain if row.positions is None else row.positions for row in alike])
        documents_RL = _documents(alike)
        at_once = max(1, tokens_at_once // width)
        for first in range(0, len(tokens_RL), at_once):
            cut = slice(first, first + at_once)
            yield Batch(
                inputs=_tensor(tokens_RL[cut, :-1], device),
                targets=_tensor(tokens_RL[cut, 1:], device),
                shares=_tensor(shares_RL[cut, 1:], device),
                positions=None if positions_RL is None else _tensor(positions_RL[cut, :-1], device),
                starts=None if documents_RL is None else [_starts(row[:-1]) for row in documents_RL[cut]],
            )


def idle_batch(device: torch.device) -> Batch:
    """A token that counts for nothing: what a rank without rows computes while others have some."""
    token = torch.zeros(1, 1, dtype=torch.int64, device=device)
    return Batch(inputs=token, targets=token, shares=torch.zeros(1, 1, device=device))


def _pieces(row: Row, values: np.ndarray) -> np.ndarray:
    return values.reshape(-1, row.piece or len(values))


def _stacked(rows: Sequence[Row], name: str) -> np.ndarray:
    return np.concatenate([_pieces(row, getattr(row, name)) for row in rows])


def _documents(rows: Sequence[Row]) -> np.ndarray | None:
    if all(row.documents is None for row in rows):
        return None
    one = [np.zeros(len(row.tokens), dtype=np.int32) if row.documents is None else row.documents for row in rows]
    return np.concatenate([_pieces(row, documents) for row, documents in zip(rows, one, strict=True)])


def _starts(documents_L: np.ndarray) -> list[int]:
    return [0, *(np.flatnonzero(np.diff(documents_L)) + 1).tolist()]


def _tensor(array: np.ndarray, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).to(device, non_blocking=True)
