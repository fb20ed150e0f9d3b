"""Output folders: whole or not at all, and never over something that is there."""

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ropewalk.atomic import beside_prefix, folder_beside, is_unfinished, remove_unfinished, sync_folder
from ropewalk.errors import CheckpointError, OutputError, RecordError
from ropewalk.names import printable
from ropewalk.reading import parsed_json, read_bounded
from ropewalk.record import FILE, MAX_RECORD, Run, read_run


def require_outside(out: Path, source: Path) -> None:
    """Raises OutputError when `out` would lie in the folder that is read: a source is never written to."""
    if source.resolve() in out.resolve().parents:
        raise OutputError(
            f"{out} lies inside {source}, which is read.\n  A source folder is never written to.\n  Give another --out."
        )


def require_new(out: Path, *, resume: bool = False) -> None:
    """Raises OutputError when `out` exists; says whether it is finished and how to go on."""
    try:
        if not out.exists() and not out.is_symlink():
            return
    except OSError as error:  # a name that is too long, a folder that may not be searched
        raise OutputError(f"cannot look at {out}: {error}.\n  Give another --out.") from None
    status = folder_status(out)
    if status in (None, "empty"):
        if status == "empty":
            return
        raise OutputError(
            f"{out} exists and was not made by ropewalk.\n  Every output is a new folder.\n  Give another --out."
        )
    if resume:
        return
    if status == "done":
        raise OutputError(
            f"{out} is there already, and finished.\n"
            "  Every output is a new folder.\n"
            "  Give another --out, or remove it to start over."
        )
    raise OutputError(
        f"{out} is there already, unfinished (status {status}).\n"
        "  Every output is a new folder.\n"
        "  Go on with --resume, or remove it to start over."
    )


def finished_run(out: Path, command: str, given: dict[str, Any], *, resume: bool) -> Run | None:
    """The record in `out` if its work is done and it is to be resumed; None if there is work to do.

    Raises OutputError when `out` may not be used: it is there without `resume`, or was made by another command than
    `command`, or with other arguments.
    """
    require_new(out, resume=resume)
    if folder_status(out) in (None, "empty"):
        return None
    earlier = read_run(out)
    if earlier.command != command:
        raise OutputError(
            f"{out} was made by `ropewalk {printable(earlier.command[:40])}`, and this is `ropewalk {command}`.\n"
            "  --resume goes on with the same work.\n"
            f"  Give the folder that `ropewalk {command}` began, or a new --out."
        )
    if earlier.given != given:
        changed = sorted(k for k in earlier.given.keys() | given.keys() if earlier.given.get(k) != given.get(k))
        was = ", ".join(f"{key} {earlier.given.get(key)!r}, now {given.get(key)!r}" for key in changed)
        raise OutputError(
            f"{out} was begun with other arguments: {was}.\n"
            "  --resume goes on with the same work.\n"
            "  Give the same arguments, or another --out."
        )
    return earlier if earlier.status == "done" else None


def require_no_run(folder: Path) -> None:
    """Raises CheckpointError for a folder that has no config.json because of what made it."""
    try:
        run = read_run(folder)
    except RecordError:
        return
    made = f"{folder} is no model: config.json is missing, and `ropewalk {printable(run.command[:40])}` made the folder"
    if run.command == "tune" and run.status != "done":
        raise CheckpointError(
            f"{made}, which has not ended (status {printable(run.status[:40])}).\n"
            "  The tuned model is written when the last step is done.\n"
            f"  Go on with it first: ropewalk tune ... --out {folder} --resume."
        )
    raise CheckpointError(
        f"{made}.\n"
        "  Expected a model's folder: what `ropewalk extend` made, or a tuning that was merged (`ropewalk tune`).\n"
        "  Give that folder; below one of `ropewalk run` they are named tuned."
    )


def folder_status(out: Path) -> str | None:
    """'empty', the status in the folder's record, or None when it is something else."""
    if not out.is_dir():
        return None
    try:
        if all(is_unfinished(path, FILE) for path in out.iterdir()):  # a kill may leave half of a first record
            return "empty"
        status = parsed_json(read_bounded(out / FILE, MAX_RECORD))["status"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return str(status)


def make_folder(out: Path) -> None:
    """`out` and its parents. Raises OutputError when that cannot be."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"cannot make the folder {out}: {error.strerror}.\n"
            "  An output is a new folder, made with those above it.\n"
            "  Give another --out, or mend the permissions."
        ) from error


def remove_folder(folder: Path) -> None:
    """Removes a folder. A kill on the way leaves it whole, or under a name that `remove_unfinished` knows."""
    aside = folder.with_name(f"{beside_prefix(folder)}{secrets.token_hex(4)}")
    with contextlib.suppress(OSError):
        os.rename(folder, aside)
        shutil.rmtree(aside, ignore_errors=True)


@contextlib.contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """A folder to fill beside `out`; renamed to `out` when the block ends well, removed when it does not.

    Raises OutputError when the disk is full or the place cannot be written.
    """
    make_folder(out.parent)
    try:
        remove_unfinished(out.parent, out.name)
        with folder_beside(out) as beside:
            yield beside
            os.chmod(beside, 0o755)
            sync_files(beside)
            _place(beside, out)
    except OSError as error:
        raise OutputError(
            f"cannot write {out}: {error.strerror or error}.\n"
            "  Nothing was left behind.\n"
            "  Give another --out, free some space, or mend the permissions."
        ) from error


def _place(beside: Path, out: Path) -> None:
    """Renames the folder to `out`, where nothing may be but an empty one: require_new let that pass."""
    try:
        if out.is_dir():
            remove_unfinished(out, FILE)
            out.rmdir()
        os.rename(beside, out)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
        raise OutputError(
            f"{out} is there: it was made while this was at work.\n"
            "  Every output is a new folder, and nothing is written over another.\n"
            "  Look at what is there, or give another --out."
        ) from error
    sync_folder(out.parent)


def sync_files(folder: Path) -> None:
    """Asks the disk to hold every file, so that a power cut after the rename finds them whole."""
    for path in (*folder.rglob("*"), folder):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            continue
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
