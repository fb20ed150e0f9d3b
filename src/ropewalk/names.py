"""Names in messages: those that are not known, and those that others chose."""

import difflib
import re
from collections.abc import Iterable

# Control signs but for the end of a line, half a surrogate pair, and what turns the direction of writing round
_STEERING = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """The text with what could steer a terminal spelled out, as JSON would: names in files may come from anyone.

    >>> printable("a" + chr(27) + "[2Jb")
    'a\\\\u001b[2Jb'
    """
    return _STEERING.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """A message for a name that is not known: the closest one, whatever the case of its letters, and all of them.

    >>> print(unknown("task", "perplexty", ["perplexity", "passkey"]))
    unknown task 'perplexty'. Did you mean 'perplexity'?
      Known: perplexity, passkey.
    """
    names = list(known)
    lowered = {one.lower(): one for one in reversed(names)}
    near = [lowered[one] for one in difflib.get_close_matches(name.lower(), lowered, n=1)]
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"unknown {kind} {name!r}.{hint}\n  Known: {', '.join(names)}."
