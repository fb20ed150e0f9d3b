"""Options of the methods: read from text, checked against what a method takes, and handed to it."""

import inspect
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ropewalk.errors import RopeError
from ropewalk.names import unknown
from ropewalk.reading import parsed_json, read_bounded
from ropewalk.rope.methods import METHODS, method_named, require_known
from ropewalk.rope.spec import RopeSpec


def method_options(name: str) -> dict[str, inspect.Parameter]:
    """The options of a method: its keyword-only parameters."""
    require_known(name)
    if name not in METHODS:  # the one for learned tables, which takes none
        return {}
    parameters = inspect.signature(METHODS[name]).parameters.values()
    return {p.name: p for p in parameters if p.kind is p.KEYWORD_ONLY}


def parsed_options(name: str, pairs: Sequence[str]) -> dict[str, Any]:
    """Options given as text, `name=value`, as the method takes them. A list is comma-separated, or JSON in `@FILE`.

    >>> parsed_options("yarn", ["beta_fast=16", "truncate=false", "ramp=pairs"])
    {'beta_fast': 16.0, 'truncate': False, 'ramp': 'pairs'}
    """
    known = method_options(name)
    options: dict[str, Any] = {}
    for pair in pairs:
        option, equals, text = pair.partition("=")
        if not equals:
            raise RopeError(f"--option {pair!r} has no value.\n  Give it as --option NAME=VALUE.")
        options[option] = _parsed(option, text, str(known[option].annotation)) if option in known else text
    return options


def rescaled_by(name: str, rope: RopeSpec, target: int, options: dict[str, Any] | None = None) -> RopeSpec:
    """`rope` taken to `target` by the method of that name. Raises RopeError for an option it does not have or lacks."""
    given = options or {}
    require_options_of(name, given)
    for option, value in given.items():
        _sensible(option, value)
    lacking = [option for option in needed_options(name) if option not in given]
    if lacking:
        raise RopeError(f"method {name} needs {', '.join(lacking)}.\n  Give it as --option {lacking[0]}=...")
    return method_named(name)(rope, target, **given)


def needed_options(name: str) -> list[str]:
    """The options that a method cannot do without.

    >>> needed_options("abf"), needed_options("pi")
    (['theta'], [])
    """
    return [p.name for p in method_options(name).values() if p.default is p.empty]


def require_options_of(name: str, given: Iterable[str]) -> None:
    """Raises RopeError for an option that the method of that name does not have."""
    known = method_options(name)
    for option in given:
        if option not in known:
            of_it = unknown(f"option of {name}", option, known) if known else f"method {name} has no options."
            raise RopeError(of_it)


def _parsed(option: str, text: str, annotation: str) -> Any:
    try:
        if "Sequence" in annotation:
            if text.startswith("@"):
                values = parsed_json(read_bounded(Path(text[1:])))
                if not isinstance(values, list):
                    raise ValueError("the file holds no list")
                return [value if isinstance(value, bool) else float(value) for value in values]
            return [float(value) for value in text.split(",")]
        if "bool" in annotation:
            return {"true": True, "false": False}[text.lower()]
        return float(text) if "float" in annotation else text
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        kinds = {"Sequence": "numbers, separated by commas, or a JSON list in @FILE", "bool": "true or false"}
        expected = next((said for kind, said in kinds.items() if kind in annotation), "a number")
        raise RopeError(f"--option {option}={text[:60]} cannot be read ({error}).\n  Expected {expected}.") from None


def _sensible(option: str, value: Any) -> None:
    """Raises RopeError for a number that no rotation can have: every numeric option counts, divides or multiplies."""
    for number in value if isinstance(value, list | tuple) else [value]:
        if isinstance(number, bool | str) or number is None:
            if isinstance(value, list | tuple):
                raise RopeError(f"{option} holds {number!r}.\n  Expected numbers.")
            continue
        if not 1e-6 <= number <= 1e15:
            raise RopeError(f"{option} is {number!r}.\n  Expected a number from 1e-6 to 1e15.")
