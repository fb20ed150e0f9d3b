"""Work in processes of its own, forked from one that has imported everything: a start costs milliseconds.

What a process says goes to a file; how it ended, and what it may take of memory and time, are looked at from outside.
`python -m tests.faults.forks` is the process that is forked: it takes one piece of work a line from standard input, and
answers with the exit code.
"""

import atexit
import base64
import importlib
import os
import pickle
import resource
import subprocess
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
CRASHED = 99  # an exception that no one caught

WARM = (
    "ropewalk.cli", "ropewalk.inspection", "ropewalk.extension", "ropewalk.checking", "ropewalk.tables",
    "ropewalk.planning.forecast", "ropewalk.planning.words", "ropewalk.reports.page", "ropewalk.train.tune",
    "ropewalk.evals.evaluate", "ropewalk.exporting.export", "transformers.models.llama.modeling_llama",
    "transformers.models.auto.tokenization_auto", "gguf", "tests.faults.work",
)  # fmt: skip


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit code (negative: the signal that killed it), and all it said."""

    code: int
    said: str


def ended(work: Callable[..., Any], *arguments: Any, log: Path) -> Ended:
    """Runs `work(*arguments)`, a function of a module that is warm, in a fork; both of its outputs go to `log`."""
    server = _server()
    job = base64.b64encode(pickle.dumps((work, arguments, str(log)))).decode()
    assert server.stdin is not None and server.stdout is not None
    server.stdin.write(f"{job}\n")
    server.stdin.flush()
    code = int(server.stdout.readline())
    return Ended(code, log.read_text(errors="replace") if log.exists() else "")


@cache
def _server() -> subprocess.Popen[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.faults.forks"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment,
    )  # fmt: skip
    atexit.register(server.kill)
    return server


def _serve() -> None:
    for name in WARM:
        importlib.import_module(name)
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            answers.close()
            run(*pickle.loads(base64.b64decode(line)))
        _, status = os.waitpid(child, 0)
        answers.write(f"{os.waitstatus_to_exitcode(status)}\n")
        answers.flush()


def run(work: Callable[..., Any], arguments: tuple[Any, ...], log: str) -> None:
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for output in (1, 2):
        os.dup2(handle, output)
    code: Any = 0
    try:
        work(*arguments)
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
        code = CRASHED
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 0)


def bounded(memory: int, seconds: int) -> None:
    """So many bytes more than this process holds now, and seconds of work, from here on."""
    with open("/proc/self/statm") as file:
        held = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + memory, held + memory))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))


if __name__ == "__main__":
    _serve()
