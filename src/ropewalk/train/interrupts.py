"""A run is asked to stop: the step in hand ends and is saved first."""

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

from ropewalk.launch import launched


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM, after a save."""


@contextlib.contextmanager
def noticing_interrupts() -> Iterator[threading.Event]:
    """Sets the event at the first Ctrl-C or SIGTERM, so that the step in hand ends and is saved; a second one stops.

    In a process that torchrun started only a second Ctrl-C does: a scheduler sends SIGTERM to every process of a job, and
    torchrun passes on the one that it got itself. Its own patience ends with SIGKILL.
    """
    noticed = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield noticed
        return

    seen: list[int] = []

    def notice(number: int, frame: Any) -> None:
        counted = [signal.SIGINT] if launched() else [signal.SIGINT, signal.SIGTERM]
        if number in counted and any(one in counted for one in seen):
            raise KeyboardInterrupt
        seen.append(number)
        noticed.set()

    before = {number: signal.signal(number, notice) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield noticed
    finally:
        if launched() and sys.exception() is not None:
            before.pop(signal.SIGTERM)  # torchrun ends the others of a lost rank with it: what they say comes first
        for number, handler in before.items():
            signal.signal(number, handler)
