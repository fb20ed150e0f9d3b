"""Small files that others wrote, read in bounds: plain files only, no larger and no fuller than such a file can be.

What is raised here is OSError or ValueError; whose file it is, and so what to do about it, the caller knows.
"""

import errno
import json
import os
import reprlib
import stat
from pathlib import Path
from typing import Any

MAX_BYTES = 32 * 1024 * 1024  # the index of a model of a trillion parameters has about 10 MB
MAX_VALUES = 2_000_000  # in one JSON text: each takes up to 100 bytes of memory, however few it takes on disk

_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother, _SHORT.maxlong = 3, 80, 80, 40


def read_bounded(path: Path, limit: int = MAX_BYTES) -> bytes:
    """The content of a plain file. Raises OSError for a pipe or a device, ValueError for more than `limit` bytes.

    A named pipe would be waited for without end, so it is opened in a way that does not wait.
    """
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    with os.fdopen(handle, "rb") as file:
        about = os.fstat(handle)
        if not stat.S_ISREG(about.st_mode):
            raise OSError(errno.EINVAL, "it is not a plain file", str(path))
        if about.st_size > limit:
            raise ValueError(f"it has {about.st_size:,} bytes, and such a file has at most {limit:,}")
        content = file.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"it has more than {limit:,} bytes")
    return content


def parsed_json(raw: bytes) -> Any:
    """What a JSON text holds. Raises ValueError where it is none, nests too deeply, or says one name twice.

    A name said twice with one value is let pass; with two, every reader would choose for itself. NaN and Infinity are
    read, as Python and many published files have them; what they are not good for refuses them.
    """
    if raw.count(b",") + raw.count(b"[") + raw.count(b"{") > MAX_VALUES:
        raise ValueError(f"it holds more than {MAX_VALUES:,} values")
    try:
        return json.loads(raw.decode("utf-8-sig"), object_pairs_hook=_named_once)
    except RecursionError:
        raise ValueError("it nests too deeply") from None


def _named_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        for name, value in pairs:
            if content[name] is not value and content[name] != value:
                raise ValueError(f"it says {shown(name)} twice, with different values")
    return content


def shown(value: Any) -> str:
    """A value for a message: its repr, cut short where it is long or deep."""
    return _SHORT.repr(value)
