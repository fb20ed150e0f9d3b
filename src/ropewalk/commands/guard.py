"""What every verb does alike: mistakes, memory that runs out and Ctrl-C end in one message."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import typer
from rich.console import Console

from ropewalk.answers import let_go
from ropewalk.errors import RankError, RopewalkError
from ropewalk.launch import launched, rank_and_count, speaks
from ropewalk.names import printable

INTERRUPTED = 130  # the shell's code for Ctrl-C
MISTAKE = 2
NOT_AS_MEANT = 1  # what was asked about is not as it should be: a runtime's reading, a task that dropped

console = Console(stderr=True, quiet=rank_and_count()[0] > 0)  # of several ranks the first tells how the work goes
errors = Console(stderr=True)
READER_GONE = 141  # the shell's code for a reader of the answer that went away: 128 and SIGPIPE
RESUMABLE = ("tune", "evaluate", "search", "run")
SHARED = ("tune", "evaluate")  # verbs whose work several processes do together


def verb(function: Callable[..., None]) -> Callable[..., None]:
    """A verb of the command line: our errors are printed without a traceback and end with code 2, Ctrl-C with 130."""

    @functools.wraps(function)
    def guarded(*arguments: Any, **options: Any) -> None:
        try:
            with mistakes(), _one_of_several(function.__name__) if launched() else contextlib.nullcontext():
                function(*arguments, **options)
        except BrokenPipeError:
            let_go()
            raise typer.Exit(READER_GONE) from None
        except (MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
            if speaks(error):
                errors.print(
                    _out_of_memory(error, function.__name__), style="red", highlight=False, markup=False, soft_wrap=True
                )
            raise typer.Exit(MISTAKE) from None
        except KeyboardInterrupt as stopped:
            what = str(stopped) or "stopped"
            if speaks(stopped):
                errors.print(
                    f"{what}; {_how_to_go_on(function.__name__)}", highlight=False, markup=False, soft_wrap=True
                )
            raise typer.Exit(INTERRUPTED) from None

    return guarded


@contextlib.contextmanager
def mistakes() -> Iterator[None]:
    """An error of ours is printed without a traceback, and ends with code 2."""
    try:
        yield
    except RopewalkError as error:
        if speaks(error):
            said = printable(f"{type(error).__name__}: {error}")
            errors.print(said, style="red", highlight=False, markup=False, soft_wrap=True)
        raise typer.Exit(MISTAKE) from None


def _how_to_go_on(name: str) -> str:
    return "go on with --resume" if name in RESUMABLE else "nothing half made was left; start it again"


def _is_out_of_memory(error: BaseException) -> bool:
    """torch has a type of its own for a GPU's memory, and none for the host's."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "can't allocate memory" in str(error)
    )


def _out_of_memory(error: BaseException, name: str) -> str:
    said = (str(error).strip().splitlines() or ["the interpreter could not allocate"])[0]
    if name not in RESUMABLE:
        return (
            f"out of memory: {said}\n"
            f"  {name} asked for more than was free.\n"
            "  Free some memory, then start it again; nothing half made was left."
        )
    return (
        f"out of memory: {said}\n"
        "  What is computed at once was to fit what was free when it began; something else may have taken it since.\n"
        "  Give a smaller --memory-budget (tune, evaluate) or shorter lengths; `ropewalk plan` says what a tuning run "
        "needs.\n"
        "  What was done is kept: go on with --resume."
    )


@contextlib.contextmanager
def _one_of_several(name: str) -> Iterator[None]:
    """In a process that torchrun started: the loss of another is an error like ours, and the group ends with the verb."""
    from ropewalk.model.ranks import leave, lost_rank

    if name not in SHARED and (count := rank_and_count()[1]) > 1:
        raise RankError(
            f"{name} was started in {count} processes.\n"
            f"  torchrun is for verbs whose work several processes share: {', '.join(SHARED)}.\n"
            f"  Run it once: ropewalk {name} ..."
        )
    with lost_rank(lambda: "the work stopped on the way"):
        yield
        leave()
