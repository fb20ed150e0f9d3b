"""torchrun, as a test runs it: on this machine, a thread a process, with what it printed when it fails."""

import os
import subprocess
import sys
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


def launched(
    processes: int, *arguments: str, code: int = 0, more: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs to its end; raises with the output when the exit code is not `code`. `more` joins the environment."""
    done = subprocess.run(
        torchrun(processes, *arguments), capture_output=True, text=True, env=environment() | (more or {}),
        timeout=SECONDS, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == code, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done
