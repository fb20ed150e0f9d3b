"""Single values of a config.json, checked: what is not as expected stops with its key, its value and its file."""

from collections.abc import Iterable, Sequence
from typing import Any, TypeGuard

from ropewalk.errors import CheckpointError
from ropewalk.reading import shown

LARGEST = 1e15  # beyond it, no number is a length, a factor or a theta


def is_number(value: Any) -> TypeGuard[int | float]:
    """Whether a value is a number that means something here."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST


def number(value: Any, key: str, source: str, expected: str = "a number", *, above: float = -LARGEST) -> float:
    """The value as it stands, an int or a float. Raises CheckpointError when it is neither, or not above `above`."""
    if not is_number(value) or not value > above:
        raise wrong(value, key, source, expected)
    return value


def whole(value: Any, key: str, source: str, expected: str = "a whole number") -> int:
    """A count of at least 1; 4096.0 is one too. Raises CheckpointError when the value is none."""
    if not is_number(value) or value != int(value) or value < 1:
        raise wrong(value, key, source, expected)
    return int(value)


def count(config: dict[str, Any], keys: Sequence[str], source: str) -> int:
    """A number of layers, heads or dimensions under the first of these keys; 0 where none says it."""
    value = first_said(config, keys)
    value = 0 if value is None else value
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**31:
        raise wrong(value, keys[0], source, "a whole number")
    return value


def require(holds: bool, value: Any, key: str, source: str, expected: str) -> None:
    """Raises CheckpointError unless what was found out about the value holds."""
    if not holds:
        raise wrong(value, key, source, expected)


def wrong(value: Any, key: str, source: str, expected: str) -> CheckpointError:
    return CheckpointError(
        f"{key} is {shown(value)} in {source}.\n  Expected {expected}.\n  Correct it, or fetch the checkpoint again."
    )


def first_said(config: dict[str, Any], keys: Iterable[str]) -> Any:
    """The value of the first of these keys that says something; None where none does."""
    return next((config[key] for key in keys if config.get(key) is not None), None)
