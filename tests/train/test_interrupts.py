"""How often a run must be asked to stop until it stops at once: real signals, to this process."""

import os
import signal

import pytest

from ropewalk.train.interrupts import noticing_interrupts

TORCHRUN = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}
INT, TERM = signal.SIGINT, signal.SIGTERM


def borne(signals: list[int]) -> int:
    """How many of the signals pass before one stops the work at once."""
    with noticing_interrupts() as noticed:
        assert not noticed.is_set()
        for count, number in enumerate(signals):
            try:
                os.kill(os.getpid(), number)
            except KeyboardInterrupt:
                return count
            assert noticed.is_set()
    return len(signals)


@pytest.mark.parametrize(
    ("signals", "alone", "launched"),
    [
        ([TERM, TERM, TERM], 1, 3),  # a scheduler's to every process, and torchrun's, which had it too
        ([INT, INT], 1, 1),
        ([INT, TERM], 1, 2),  # torchrun ends the ranks that are left of a stopped run
        ([TERM, INT, TERM], 1, 3),
        ([TERM, INT, INT], 1, 2),
    ],
)
def test_under_torchrun_only_a_second_ctrl_c_stops_at_once(
    monkeypatch: pytest.MonkeyPatch, signals: list[int], alone: int, launched: int
) -> None:
    before = signal.getsignal(INT), signal.getsignal(TERM)
    assert borne(signals) == alone
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    assert borne(signals) == launched
    assert (signal.getsignal(INT), signal.getsignal(TERM)) == before
