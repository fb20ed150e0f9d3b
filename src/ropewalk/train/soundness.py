"""Whether a run still makes sense: losses and gradients that are numbers, weights that are, and a loss that has not run away."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ropewalk.errors import DataError
from ropewalk.model.engine import autocast
from ropewalk.model.finite import first_not_finite, first_weight_not_finite
from ropewalk.model.ranks import ALONE, Ranks
from ropewalk.train.rows import Row

RUNAWAY_STEPS, RUNAWAY_NATS = 5, 2.0  # so many steps in a row this far above the first ones: the run has exploded


def ran_away(losses: Sequence[float], loss: float) -> bool:
    """Whether the loss, for some steps, is far above where the run began: no recipe recovers from that in time."""
    if len(losses) < 2 * RUNAWAY_STEPS:
        return False
    began, lately = losses[:RUNAWAY_STEPS], [*losses[1 - RUNAWAY_STEPS :], loss]
    return min(lately) > max(began) + RUNAWAY_NATS


def is_sound(losses: Sequence[float], loss: float, norm: float) -> bool:
    return math.isfinite(loss) and math.isfinite(norm) and not ran_away(losses, loss)


def unsound(
    model: Any,
    rows: Sequence[Row],
    first: int,
    step: int,
    loss: float,
    norm: float,
    compute: torch.dtype,
    save: Path | None,
    ranks: Ranks = ALONE,
) -> DataError:
    """The error of a step whose loss or gradient is no number, or whose loss has run away, with the place of the first.

    Of several ranks each must ask, with the same rows: the weights that the search needs are gathered from all.
    """
    return DataError(
        f"the loss is {loss} with a gradient norm of {norm} at step {step}, rows {first} to {first + len(rows) - 1}: "
        f"tuning cannot go on{_where(model, rows, compute, ranks)}.\n"
        f"  The last good save is {save or 'none'}.\n"
        "  Try a lower --learning-rate, in another --out."
    )


def require_finite_weights(model: Any, step: int, save: Path | None, ranks: Ranks = ALONE) -> None:
    """Raises DataError for weights that are to be saved and are no numbers: the save before is then the last good one.

    Of several ranks all raise it where one would.
    """
    if (name := first_weight_not_finite(model, ranks)) is not None:
        raise DataError(
            f"the weight {name} is no longer finite after step {step}: tuning cannot go on, and it was not saved.\n"
            f"  The last good save is {save or 'none'}.\n"
            "  Try a lower --learning-rate, in another --out."
        )


def _where(model: Any, rows: Sequence[Row], compute: torch.dtype, ranks: Ranks) -> str:
    """The first module that is not finite in one of the rows, or the first weight; '' where neither is found."""
    if (name := first_weight_not_finite(model, ranks)) is not None:
        return f"; the weight {name} is not finite"
    device = next(model.parameters()).device
    for number, row in enumerate(rows):
        tokens_BL = torch.as_tensor(row.tokens, device=device)[None, :-1]
        try:
            with autocast(device, compute, copies=False):
                found = first_not_finite(model, tokens_BL)
        except RuntimeError:  # no room for a plain forward pass
            return ""
        if found is not None:
            return f"; of its row {number} the first number that is not finite is in {found}"
    return ""
