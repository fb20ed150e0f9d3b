"""Files and folders that appear whole or not at all, each made by one process at a time.

What is being made lies beside its place, under a name that no one takes for it, and that is ours alone, so that it may
be cleared away: `.NAME.ropewalk-` and eight signs more. It is locked for as long as its maker lives (flock, which the system lets go of with the process: there is no lock file that
could be left behind), so that what a killed process left can be told from what another is still making.
"""

import contextlib
import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ropewalk.errors import OutputError

try:
    import fcntl
except ImportError:  # not POSIX: no locks, and what is found unfinished is left alone
    fcntl = None

UNFINISHED = re.compile(r"\..+\.ropewalk-[a-z0-9_]{8}")
_HELD = (errno.EWOULDBLOCK, errno.EACCES)


def beside_prefix(path: Path) -> str:
    """How the name of what is to be `path` begins while it is unfinished; eight signs follow."""
    return f".{path.name}.ropewalk-"


def write_text(path: Path, text: str, *, new: bool = False) -> None:
    """Writes beside `path` and renames into place. Raises OutputError when the disk will not have it.

    With `new`, a file that has appeared there meanwhile is left alone, and that is an OutputError too.
    """
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=beside_prefix(path))
        beside = Path(name)
        try:
            locked(handle)
            with os.fdopen(handle, "wb") as file:
                file.write(text.encode("utf-8", errors="replace"))  # JSON can hold half a surrogate pair
                file.flush()
                os.fsync(handle)
                os.chmod(beside, 0o644)
                (_put_new if new else os.replace)(beside, path)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)
    except FileExistsError as error:
        raise OutputError(
            f"{path} exists: it was made while this was at work.\n"
            "  Nothing is written over another file.\n"
            "  Look at what is there, or give another --out."
        ) from error
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror or error}.\n"
            "  What was there before is as it was.\n"
            "  Free some space, mend the permissions, or name another place."
        ) from error


def _put_new(beside: Path, path: Path) -> None:
    """Gives a file its name where nothing has it; where the file system has no links, as well as can be."""
    try:
        os.link(beside, path)
    except OSError as error:
        if isinstance(error, FileExistsError) or path.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.EACCES):
            raise
        os.replace(beside, path)
    else:
        beside.unlink()


def locked(handle: int) -> bool:
    """Takes the lock of an open file or folder; False where another process holds it.

    True as well where the file system has no locks: they are a help, and no condition.
    """
    if fcntl is None:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in _HELD
    return True


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keeps other processes of ours out of a folder that is written to. Raises OutputError when one is in it."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise OutputError(
            f"cannot look at {folder}: {error.strerror}.\n"
            "  An output folder is locked while it is written to.\n"
            "  Give another --out, or mend the permissions."
        ) from error
    try:
        if not locked(handle):
            raise OutputError(
                f"{folder} is being written to by another process.\n"
                "  Two would spoil each other's work; nothing of it was touched.\n"
                "  Wait for that one, or give another --out."
            )
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def folder_beside(out: Path) -> Iterator[Path]:
    """An empty folder beside `out` to fill, locked; gone at the end unless it was renamed. Raises OutputError."""
    while True:
        try:
            beside = Path(tempfile.mkdtemp(dir=out.parent, prefix=beside_prefix(out)))
        except OSError as error:
            raise OutputError(
                f"cannot write in {out.parent}: {error.strerror}.\n"
                "  An output is made beside its place, and takes its name when it is whole.\n"
                "  Give another --out, free some space, or mend the permissions."
            ) from error
        handle = os.open(beside, os.O_RDONLY)
        locked(handle)
        with contextlib.suppress(OSError):  # gone: another process took it for a dead one's before it was locked
            if os.path.samestat(os.stat(beside), os.fstat(handle)):
                break
        os.close(handle)
    try:
        yield beside
    finally:
        shutil.rmtree(beside, ignore_errors=True)
        os.close(handle)


def is_unfinished(path: Path, of: str = "") -> bool:
    """Whether a name is that of something unfinished; with `of`, of something that was to have that name."""
    begins = beside_prefix(path.with_name(of)) if of else "."
    return UNFINISHED.fullmatch(path.name) is not None and path.name.startswith(begins)


def remove_unfinished(folder: Path, of: str = "") -> None:
    """Removes from `folder` what a killed process was about to rename into place; with `of`, only what was to be `of`.

    What a living process holds stays.
    """
    for path in folder.iterdir() if folder.is_dir() else ():
        if is_unfinished(path, of):
            _remove_dead(path)


def _remove_dead(path: Path) -> None:
    with contextlib.suppress(OSError):
        if path.is_symlink():
            return  # not ours: we make none
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        try:
            if not locked(handle):
                return
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()
        finally:
            os.close(handle)


def sync_folder(folder: Path) -> None:
    """Asks the disk to hold the names in a folder, so that a power cut after a rename does not undo it."""
    with contextlib.suppress(OSError):  # not every file system can be asked
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
