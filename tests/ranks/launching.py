"""torchrun, as a test runs it: on this machine, a thread a process, with what it printed when it fails.

torchrun starts each rank in a session of its own, so that a signal to torchrun's group does not reach them, and SIGKILL
leaves them without a parent: what a test starts is ended here, ranks and all, however the test ends.
"""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
SECONDS = 900  # a run that hangs; on a busy machine one that does not takes minutes


def torchrun(processes: int, *arguments: str, restarts: int = 0) -> list[str]:
    return [
        sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}",
        f"--max-restarts={restarts}", *arguments,
    ]  # fmt: skip


def environment() -> dict[str, str]:
    paths = [str(ROOT / "src"), str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "OMP_NUM_THREADS": "1"}


@dataclass
class Started:
    """A process that runs, and where what it and its children write goes: out and error together, or apart."""

    process: subprocess.Popen[bytes]
    out: Path
    error: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    def said(self) -> str:
        return self.out.read_text(errors="replace") + self.error.read_text(errors="replace")

    def ended(self, seconds: float = SECONDS) -> int:
        """Its exit code. Fails where it takes longer."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"not at its end after {seconds:.0f} s\n{self.said()}") from None

    def until(self, there: Callable[[], bool], seconds: float = SECONDS) -> None:
        """Waits for something that happens while it runs. Fails where it ends before, or where that takes longer."""
        deadline = time.monotonic() + seconds
        while not there():
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < deadline, f"nothing after {seconds:.0f} s\n{self.said()}"
            time.sleep(0.002)


@contextlib.contextmanager
def started(command: Sequence[str], *, more: dict[str, str] | None = None, cwd: Path = ROOT) -> Iterator[Started]:
    """The command in a session of its own; when the block is left, neither it nor anything it started is. `more` joins
    the environment."""
    with tempfile.TemporaryDirectory() as folder:
        out, error = Path(folder) / "out", Path(folder) / "error"
        with out.open("wb") as to_out, error.open("wb") as to_error:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=to_out, stderr=to_error, cwd=cwd, start_new_session=True,
                env=environment() | (more or {}),
            )  # fmt: skip
        try:
            yield Started(process, out, error)
        finally:
            end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """Kills it with all that it started. Held first, so that it starts no more."""
    if process.poll() is None:
        os.kill(process.pid, signal.SIGSTOP)
        for pid in (*descendants(process.pid), process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()


def children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):  # it has ended
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def descendants(pid: int) -> list[int]:
    return [one for child in children(pid) for one in (child, *descendants(child))]


def rank_of(pid: int) -> int | None:
    """The rank that a process is; None for one that is none, or not yet."""
    with contextlib.suppress(OSError):
        for variable in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            if variable.startswith(b"RANK="):
                return int(variable.partition(b"=")[2])
    return None


def pid_of(rank: int, run: Started) -> int:
    return next(pid for pid in children(run.pid) if rank_of(pid) == rank)


def ended(
    command: Sequence[str], *, code: int = 0, more: dict[str, str] | None = None, cwd: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    """The command run to its end; raises with the output when the exit code is not `code`, and when it hangs."""
    with started(command, more=more, cwd=cwd) as run:
        found = run.ended()
        assert found == code, f"{command}: exit code {found}\n{run.said()}"
        return subprocess.CompletedProcess(list(command), found, run.out.read_text(), run.error.read_text())


def launched(
    processes: int, *arguments: str, code: int = 0, more: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """The same of torchrun with so many processes."""
    return ended(torchrun(processes, *arguments), code=code, more=more)
