"""Nothing that a model folder names may lead out of it: not a path in a file, and not a link.

Links are followed where the hub's own client makes them, from snapshots/REVISION to the blobs of the same repository,
and within the folder itself.
"""

import os
from pathlib import Path
from typing import Any

from ropewalk.errors import CheckpointError
from ropewalk.reading import shown


def require_inside(path: Path) -> None:
    """Raises CheckpointError for a link that leads out of its folder, or nowhere. `path` need not exist."""
    if not path.is_symlink():
        return
    folder = path.parent.resolve()
    try:
        target = path.resolve(strict=True)
    except (OSError, RuntimeError):
        target = None
    if target is not None and target.parent in (folder, _blobs(folder)):
        return
    raise CheckpointError(
        f"{path} is a link to {shown(os.readlink(path))}, out of the model's folder or to nothing.\n"
        "  Links are followed within the folder, and from a hub cache's snapshots to its blobs.\n"
        "  Put the file itself in its place, or give the folder that it lies in."
    )


def _blobs(folder: Path) -> Path | None:
    """Where links of a hub cache's snapshot lead; None for a folder that is none."""
    return folder.parent.parent / "blobs" if folder.parent.name == "snapshots" else None


def is_plain_name(name: Any) -> bool:
    """Whether a name from a file can only mean something in the folder itself."""
    return (
        isinstance(name, str)
        and 0 < len(name.encode("utf-8", "surrogatepass")) <= 255
        and name not in (".", "..")
        and not set(name) & set("/\\\0:")
        and name.isprintable()
    )


def unreadable(path: Path, error: OSError) -> CheckpointError:
    return CheckpointError(
        f"{path} cannot be read: {error.strerror or error}.\n"
        "  A model is read as it lies: its folder, config, weights and tokenizer files.\n"
        "  Mend the path or the permissions, or fetch the checkpoint again."
    )


def require_readable(path: Path) -> None:
    """Raises CheckpointError for a file that may not be read, so that it is not taken for one that cannot be written."""
    try:
        path.open("rb").close()
    except OSError as error:
        raise unreadable(path, error) from None
