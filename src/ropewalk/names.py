"""Messages for names that are not known."""

import difflib
from collections.abc import Iterable


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """A message for a name that is not known: the closest one, and all of them.

    >>> print(unknown("task", "perplexty", ["perplexity", "passkey"]))
    unknown task 'perplexty'. Did you mean 'perplexity'?
      Known: perplexity, passkey.
    """
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"unknown {kind} {name!r}.{hint}\n  Known: {', '.join(names)}."
