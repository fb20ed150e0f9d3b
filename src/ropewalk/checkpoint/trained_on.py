"""Which documents a checkpoint was tuned on, as digests: what it has read is not what it should be measured on.

The list lies in the folder and goes on into whatever is made of it. It holds what ropewalk tuned on, nothing of what
the base was pretrained on, and knows a text by its exact words.
"""

from collections.abc import Iterable
from pathlib import Path

from ropewalk.checkpoint.inside import require_inside, unreadable
from ropewalk.errors import CheckpointError
from ropewalk.reading import parsed_json, read_bounded
from ropewalk.record import write_json

TRAINED_ON = "trained_on.json"
VERSION = 1
MAX_LIST = 128 * 1024 * 1024  # bytes: a list of about two million documents


def trained_on(folder: Path) -> frozenset[str]:
    """sha256 of every document that the checkpoint in `folder`, or one it was made from, was tuned on.

    Empty where there is no list. Raises CheckpointError for one that cannot be read.
    """
    path = folder / TRAINED_ON
    require_inside(path)
    try:
        content = parsed_json(read_bounded(path, MAX_LIST))
        if content["version"] != VERSION or not all(isinstance(digest, str) for digest in content["documents"]):
            raise ValueError(f"not a list of digests of version {VERSION}")
        return frozenset(content["documents"])
    except FileNotFoundError:
        return frozenset()
    except OSError as error:
        raise unreadable(path, error) from None
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} does not say what the checkpoint was tuned on: {error!r}.\n"
            "  Without it no one can tell whether a text was trained on.\n"
            "  Fetch the checkpoint again; or remove the file, if that is known otherwise."
        ) from None


def write_trained_on(folder: Path, digests: Iterable[str], base: Path | None = None) -> None:
    """Writes the list into `folder`, sorted, with that of `base` in it; whole or not at all. No list of nothing."""
    documents = sorted({*digests, *(trained_on(base) if base else ())})
    if documents:
        write_json(folder / TRAINED_ON, {"version": VERSION, "documents": documents})
