"""How long work tells where it is: bars on a terminal, plain lines elsewhere, silence from Python."""

import contextlib
import time
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from ropewalk.names import printable

LINE_EVERY = 10.0  # seconds between plain lines


class Bar:
    """Counts work done; does nothing by itself."""

    def advance(self, amount: float = 1, **figures: Any) -> None:
        """`figures` are shown beside the count, such as loss=3.21."""


class Progress:
    """The silent one, and the interface of the others."""

    def note(self, text: str) -> None:
        """Something worth knowing."""

    def warn(self, text: str) -> None:
        """Something that may not be what was meant."""

    @contextlib.contextmanager
    def bar(self, title: str, total: float, done: float = 0) -> Iterator[Bar]:
        yield Bar()


silent = Progress()


class _RichBar(Bar):
    def __init__(self, progress: RichProgress, task: Any):
        self._progress, self._task = progress, task

    def advance(self, amount: float = 1, **figures: Any) -> None:
        self._progress.update(self._task, advance=amount, figures=_words(figures))


class _LineBar(Bar):
    def __init__(self, console: Console, title: str, total: float, done: float):
        self._console, self._title, self._total, self._done = console, title, total, done
        self._began = self._spoke = time.monotonic()
        self._at_start = done

    def advance(self, amount: float = 1, **figures: Any) -> None:
        self._done += amount
        now = time.monotonic()
        if now - self._spoke < LINE_EVERY and self._done < self._total:
            return
        self._spoke = now
        spent = now - self._began
        left = spent / max(self._done - self._at_start, 1e-9) * (self._total - self._done)
        when = f"{spent:.0f} s" if self._done >= self._total else f"{left:.0f} s left"
        self._console.print(f"{self._title}: {self._done:g} of {self._total:g}, {when} {_words(figures)}".rstrip())


class TerminalProgress(Progress):
    """Bars on a terminal, a line every ten seconds where there is none. Writes to `console` only."""

    def __init__(self, console: Console):
        self._console = console

    def note(self, text: str) -> None:
        self._console.print(printable(text), highlight=False, markup=False)

    def warn(self, text: str) -> None:
        self._console.print(printable(f"warning: {text}"), style="yellow", highlight=False, markup=False)

    @contextlib.contextmanager
    def bar(self, title: str, total: float, done: float = 0) -> Iterator[Bar]:
        if not self._console.is_terminal:
            yield _LineBar(self._console, title, total, done)
            return
        columns = (
            TextColumn("{task.description:<28}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}"),
        )
        with RichProgress(*columns, console=self._console) as progress:
            yield _RichBar(progress, progress.add_task(title, total=total, completed=int(done), figures=""))


def _words(figures: dict[str, Any]) -> str:
    return "  ".join(f"{name.replace('_', ' ')} {value}" for name, value in figures.items())
