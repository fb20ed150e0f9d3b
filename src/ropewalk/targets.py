"""What a run is asked for: its targets, its methods, and numbers for each target."""

from collections.abc import Sequence
from typing import Any

from ropewalk.errors import DataError
from ropewalk.rope.methods import METHODS
from ropewalk.rope.options import needed_options


def require_arms(targets: Sequence[int] | None, methods: Sequence[str]) -> None:
    """Raises DataError for no target or method, for one that is asked for twice, and for a method with needs of its own.

    `targets` None: they follow from the model.
    """
    for option, asked in (("--to", targets), ("--method", methods)):
        if asked is None:
            continue
        if not asked:
            raise DataError(
                f"{option} is empty.\n  Every method is tuned at every target, so there is at least one of each.\n"
                f"  Give one or more, separated by commas, or leave {option} out."
            )
        if twice := [one for one in asked if list(asked).count(one) > 1]:
            raise DataError(
                f"{option} has {twice[0]} twice: {', '.join(map(str, asked))}.\n"
                "  Each method at each target is one arm, with one folder.\n  Name it once."
            )
    for name in methods:
        if name in METHODS and (lacking := needed_options(name)):
            usable = ", ".join(one for one in METHODS if not needed_options(one))
            raise DataError(
                f"method {name} needs {', '.join(lacking)}, which run has no option for.\n"
                f"  Its arms are methods that need none: {usable}.\n"
                f"  Name one of those, or go a step at a time: extend --method {name} --option {lacking[0]}=..., tune, "
                "evaluate."
            )


def by_target(name: str, targets: Sequence[int], given: Any) -> dict[int, Any]:
    """One value for each target, the shortest first. Raises DataError when there is neither one for all nor for each."""
    values = list(given) if isinstance(given, Sequence) else [given]
    if len(values) not in (1, len(targets)):
        raise DataError(
            f"{name} has {len(values)} numbers, and there are {len(targets)} targets: {', '.join(map(str, targets))}.\n"
            "  Arms of one target are compared, so each target has a number of its own, or all have the same.\n"
            "  Give one number, or one for each target in their order."
        )
    return dict(sorted(zip(targets, values * (len(targets) // len(values)), strict=True), key=lambda pair: pair[0]))
