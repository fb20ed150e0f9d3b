"""What a verb answers, on standard output."""

import contextlib
import errno
import os
import sys

from rich.console import Console
from rich.segment import Segment, Segments
from rich.table import Table

from ropewalk.errors import OutputError
from ropewalk.launch import rank_and_count
from ropewalk.names import printable


def show(answer: str | Table) -> None:
    """Writes an answer to standard output and sees it arrive. Raises OutputError when it does not. Of several ranks the
    first does.

    A reader that has gone (`| head`) is no error of ours: the BrokenPipeError goes on, and the command line ends at it.
    """
    if rank_and_count()[0]:
        return
    try:
        if isinstance(answer, str):
            print(printable(answer))
        else:
            console = _Answers()
            parts = (part for part in console.render(answer) if not part.control)
            console.print(Segments(Segment(printable(part.text), part.style) for part in parts), end="")
        print(end="", flush=True)
    except OSError as error:
        if error.errno == errno.EPIPE:
            raise
        let_go()
        raise OutputError(
            f"the answer cannot be written to standard output: {error.strerror or error}.\n"
            "  The work itself is done; only what was to be said of it is lost.\n"
            "  Free some space, or send the output elsewhere."
        ) from error


class _Answers(Console):
    """One that leaves a reader who has gone to the command line; rich's own ends the process with code 1."""

    def on_broken_pipe(self) -> None:
        raise  # it is called while the BrokenPipeError is handled


def let_go() -> None:
    """Sends what is still in the buffer nowhere: Python would try it again at exit, and end with a code of its own."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
