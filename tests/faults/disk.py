"""What a verb does to the disk, counted; and a fault at one of its operations: a kill, an error of the disk, a delay.

Counted is what happens below one folder: folders made, files opened for writing, every write, fsync, rename, link,
truncation, change of mode and removal. Python says most of them to an audit hook; writes go through a raw file of our
own. Files of tensors are written by native code that no hook sees: it is counted as one, and a kill in it leaves half.
A limit on the size of files (`Bytes`) kills there too, at any byte.
"""

import builtins
import errno
import io
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Kill:
    """SIGKILL at the operation `at`, counted from 1; in a write, after half of it."""

    at: int


@dataclass(frozen=True)
class Fails:
    """The operation `at`, and with `stays` every one after it, fails with this error of the system."""

    at: int
    error: int
    stays: bool = False


@dataclass(frozen=True)
class Slow:
    """Each operation takes so many seconds more."""

    seconds: float


@dataclass(frozen=True)
class Bytes:
    """The kernel kills the process when a file grows beyond so many bytes; what fits is written."""

    most: int


@dataclass(frozen=True)
class Does:
    """Something else happens to the world just before the operation `at`."""

    at: int
    what: Callable[..., None]
    arguments: tuple[Any, ...]


Fault = Kill | Fails | Slow | Bytes | Does | None
_EVENTS = {"os.mkdir", "os.rename", "os.rmdir", "os.remove", "os.chmod", "os.truncate", "os.link", "os.symlink"}
_WRITING = set("wax+")


class Disk:
    """Counts the operations below `place` and lets the fault happen."""

    def __init__(self, place: str, fault: Fault):
        self.place, self.fault, self.count, self.busy = place, fault, 0, False

    def install(self) -> None:
        if isinstance(self.fault, Bytes):
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.fault.most, self.fault.most))
        self.open = io.open
        builtins.open = io.open = self._open
        for name in ("write", "fsync", "sendfile", "ftruncate"):
            setattr(os, name, self._on_handle(getattr(os, name)))
        self._native()
        sys.addaudithook(self._heard)

    def operation(self, half: Callable[[], Any] | None = None, *, removes: bool = False) -> None:
        """One operation is about to begin; `half` does half of it."""
        self.count += 1
        match self.fault:
            case Kill(at) if at == self.count:
                self.busy = True
                if half is not None:
                    half()
                os.kill(os.getpid(), signal.SIGKILL)
            case Fails(at, error, stays) if at == self.count or (stays and self.count > at):
                if not removes or error in (READ_ONLY, BROKEN):  # a full disk lets go of what it has
                    raise OSError(error, os.strerror(error))
            case Slow(seconds):
                time.sleep(seconds)
            case Does(at, what, arguments) if at == self.count:
                self.busy = True
                what(*arguments)
                self.busy = False

    def _is_here(self, path: Any) -> bool:
        if isinstance(path, int):
            try:
                path = os.readlink(f"/proc/self/fd/{path}")
            except OSError:
                return False
        return not self.busy and isinstance(path, str | os.PathLike) and os.path.abspath(path).startswith(self.place)

    def _heard(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in _EVENTS:
            if any(self._is_here(path) for path in arguments[:2] if isinstance(path, str | os.PathLike)):
                self.operation(removes=event in ("os.remove", "os.rmdir"))
        elif event == "open" and _opens_to_write(arguments) and self._is_here(arguments[0]):
            self.operation()

    def _on_handle(self, work: Callable[..., Any]) -> Callable[..., Any]:
        def counted(handle: int, *arguments: Any) -> Any:
            if self._is_here(handle):
                half = None
                if work.__name__ == "write":
                    half = lambda: work(handle, bytes(arguments[0])[: len(arguments[0]) // 2])  # noqa: E731
                self.operation(half)
            return work(handle, *arguments)

        return counted

    def _open(self, file: Any, mode: str = "r", buffering: int = -1, *arguments: Any, **options: Any) -> Any:
        """The same kinds of file as open gives, over a raw one that counts what is written."""
        if not set(mode) & _WRITING or not self._is_here(file):
            return self.open(file, mode, buffering, *arguments, **options)
        names = ("encoding", "errors", "newline", "closefd", "opener")
        given = dict(zip(names, arguments, strict=False)) | options
        raw = _Raw(file, mode.replace("b", "").replace("t", ""), given.get("closefd", True), given.get("opener"))
        raw.disk = self
        buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        if "b" in mode:
            return buffered
        return io.TextIOWrapper(buffered, given.get("encoding"), given.get("errors"), given.get("newline"))

    def _native(self) -> None:
        """Tensor files, in every module that has the function under a name of its own."""
        import safetensors.torch
        import transformers.modeling_utils

        from ropewalk.train import state

        whole = safetensors.torch.save_file

        def counted(tensors: Any, path: Any, *arguments: Any, **options: Any) -> None:
            def torn() -> None:
                whole(tensors, path, *arguments, **options)
                os.truncate(path, os.path.getsize(path) // 2)

            self.operation(torn)
            whole(tensors, path, *arguments, **options)

        safetensors.torch.save_file = state.save_file = counted
        transformers.modeling_utils.safe_save_file = counted


class _Raw(io.FileIO):
    disk: Disk | None = None

    def write(self, data: Any) -> int:
        if self.disk is not None:
            whole = bytes(data)
            self.disk.operation(lambda: io.FileIO.write(self, whole[: len(whole) // 2]))
        return super().write(data)


def _opens_to_write(arguments: tuple[Any, ...]) -> bool:
    mode, flags = arguments[1], arguments[2]
    if isinstance(mode, str):
        return bool(set(mode) & _WRITING)
    return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


FULL, READ_ONLY, BROKEN, NO_QUOTA = errno.ENOSPC, errno.EROFS, errno.EIO, errno.EDQUOT
