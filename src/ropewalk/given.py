"""What callers of the functions give: one where several may stand, and seeds."""

from pathlib import Path
from typing import Any

from ropewalk.errors import DataError

MOST_SEED = 2**32 - 1  # numpy's older generator, which lm_eval seeds, takes no more


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
