"""What people write on a command line, as values: 8k, 4GB, a,b,c."""

import re
from typing import TypeVar

from ropewalk.errors import DataError
from ropewalk.reading import shown

Number = TypeVar("Number", int, float)


MOST = 10**15  # of tokens or bytes: far more than there are, and still a number that everything counts with


def tokens(text: str, option: str | None = None) -> int:
    """8192, 8k, 1m -> tokens. k is 1024 and m its square, as window sizes are meant.

    Raises DataError for anything else, naming the option that it was given for.

    >>> tokens("8k"), tokens("2048")
    (8192, 2048)
    """
    number, unit = (text[:-1], text[-1].lower()) if text[-1:].lower() in ("k", "m") else (text, "")
    try:
        count = int(number.replace("_", "")) * {"": 1, "k": 1024, "m": 1024**2}[unit]
    except ValueError:
        count = 0
    if not 1 <= count <= MOST:
        raise DataError(
            f"{_of(option)}{shown(text)} is not a number of tokens.\n"
            f"  Expected a whole number above 0, and at most {MOST:,}; k stands for 1024, m for 1024 times that.\n"
            "  Give it such as 8192 or 8k."
        )
    return count


def maybe_tokens(text: str | None, option: str | None = None) -> int | None:
    return None if text is None else tokens(text, option)


def _of(option: str | None) -> str:
    return "" if option is None else f"{option}: "


def words(text: str) -> list[str]:
    """What stands between commas."""
    return [word.strip() for word in text.split(",") if word.strip()]


def memory(text: str, option: str | None = None) -> int:
    """Bytes from 4GB, 512MiB or a plain number. Raises DataError for anything else.

    >>> memory("4GB"), memory("1.5 MiB"), memory("1000")
    (4000000000, 1572864, 1000)
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(?:([kmgt])(i?)b?|b)?\s*", text.lower())
    size = 0 if found is None else float(found[1]) * (1024 if found[3] else 1000) ** " kmgt".index(found[2] or " ")
    if not 1 <= size <= MOST:
        raise DataError(
            f"{_of(option)}{shown(text)} is no amount of memory.\n"
            f"  Expected bytes, at least 1 and at most {MOST:,}.\n"
            "  Give it such as 4GB, 512MiB or a number of bytes."
        )
    return int(size)


def maybe_memory(text: str | None, option: str | None = None) -> int | None:
    return None if text is None else memory(text, option)


def device_memory(text: str, option: str | None = None) -> int:
    """The same for the memory of a GPU, where a number without a unit counts GB, as people say it.

    >>> device_memory("80GB"), device_memory("80GiB"), device_memory("80")
    (80000000000, 85899345920, 80000000000)
    """
    return memory(f"{text.strip()}GB" if re.fullmatch(r"\s*\d+(?:\.\d+)?\s*", text) else text, option)


def token_list(text: str, option: str | None = None) -> list[int]:
    """Numbers of tokens, separated by commas."""
    return [tokens(part.strip(), option) for part in text.split(",") if part.strip()]


def numbers(option: str, text: str, kind: type[Number]) -> Number | list[Number]:
    """A number, or several separated by commas. Raises DataError for anything else.

    >>> numbers("--steps", "50", int), numbers("--learning-rate", "1e-3, 5e-4", float)
    (50, [0.001, 0.0005])
    """
    try:
        found = [kind(part) for part in text.split(",")]
    except ValueError:
        whole = "whole numbers" if kind is int else "numbers"
        raise DataError(
            f"{option} is {text!r}.\n  Expected {whole}, separated by commas where there are several.\n"
            "  Give one, or one for each target in their order."
        ) from None
    return found[0] if len(found) == 1 else found


def spread_data(arguments: list[str]) -> list[str]:
    """`--data a b c` as `--data a --data b --data c`, which is what the parser takes.

    >>> spread_data(["tune", "m", "--data", "a", "b", "--out", "d"])
    ['tune', 'm', '--data', 'a', '--data', 'b', '--out', 'd']
    """
    spread: list[str] = []
    in_data, first = False, True
    for argument in arguments:
        if argument.startswith("-"):
            in_data, first = argument == "--data", True
        elif in_data and not first:
            spread.append("--data")
        else:
            first = False
        spread.append(argument)
    return spread
