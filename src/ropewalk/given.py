"""What callers of the functions give: one where several may stand, and numbers in their bounds."""

from pathlib import Path
from typing import Any

from ropewalk.errors import DataError

MOST_SEED = 2**32 - 1  # numpy's older generator, which lm_eval seeds, takes no more
MOST_STEPS = 10**9


def several(given: Any) -> list[Any]:
    """A list of what was given: a word, a path or a number alone is a list of one, not of its letters.

    >>> several("story.txt"), several(512), several(("a", "b"))
    (['story.txt'], [512], ['a', 'b'])
    """
    return [given] if isinstance(given, str | Path | int | float) else list(given)


def require_seed(seed: int) -> None:
    """Raises DataError for a seed that a generator of random numbers would not take."""
    if not isinstance(seed, int) or not 0 <= seed <= MOST_SEED:
        raise DataError(
            f"--seed is {str(seed)[:40]}.\n"
            f"  Generators of random numbers take a whole number from 0 to {MOST_SEED}.\n"
            "  Give such a number; the default is 0."
        )


def require_steps(steps: int) -> None:
    """Raises DataError for a number of optimizer steps that makes no run."""
    if not 1 <= steps <= MOST_STEPS:
        raise DataError(
            f"--steps is {str(steps)[:40]}.\n"
            f"  A run has from 1 to {MOST_STEPS:,} of them; the paper tunes for 1000.\n"
            "  Give such a number."
        )


def require_saving(every: int, keep: int) -> None:
    """Raises DataError for saves that never come, or of which fewer than none stay."""
    if every < 1 or keep < 0:
        raise DataError(
            f"--save-every is {every} and --keep-saves {keep}.\n"
            "  Expected a whole number of steps from 1, and how many saves stay, from 0: none once the run is done.\n"
            "  Leave them out for a save every 100 steps, of which the newest stays."
        )


def require_budget(budget: int | None) -> None:
    """Raises DataError for a memory budget that holds nothing; None leaves it to what is free."""
    if budget is not None and budget < 1:
        raise DataError(
            f"--memory-budget is {budget} bytes, which holds nothing.\n"
            "  It bounds what is computed at once.\n"
            "  Give such as 8GB, or leave it out for what is free."
        )
