"""What starts the ranks of a test also ends them: a test that fails leaves no process behind."""

import time
from pathlib import Path

import pytest

from tests.ranks.launching import children, descendants, ended, rank_of, started, torchrun

SLEEPING = "import time, pathlib, sys; pathlib.Path(sys.argv[1]).touch(); time.sleep(600)"


def lives(pid: int) -> bool:
    """A process that has ended but that nobody has asked about does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.ranks
@pytest.mark.parametrize("seconds", [0.1, None], ids=["it hangs", "the test fails"])
def test_ranks_end_with_the_test_that_started_them(tmp_path: Path, seconds: float | None) -> None:
    script, there = tmp_path / "sleeping.py", tmp_path / "there"
    script.write_text(SLEEPING)
    seen: list[int] = []
    with pytest.raises(AssertionError, match="not at its end after 0 s" if seconds else "as it may"):
        with started(torchrun(2, str(script), str(there))) as run:
            run.until(
                lambda: there.exists() and len([pid for pid in children(run.pid) if rank_of(pid) is not None]) == 2
            )
            seen = [run.pid, *descendants(run.pid)]
            assert len(seen) >= 3 and all(map(lives, seen))
            if seconds:
                run.ended(seconds)
            raise AssertionError("as it may")
    deadline = time.monotonic() + 10
    while any(map(lives, seen)):
        assert time.monotonic() < deadline, seen
        time.sleep(0.01)


def test_what_does_not_come_is_not_waited_for() -> None:
    with pytest.raises(AssertionError, match="nothing after 0 s"), started(["sleep", "600"]) as run:
        run.until(lambda: False, 0.05)
    assert not lives(run.pid)
    with pytest.raises(AssertionError, match="words"), started(["sh", "-c", "echo words"]) as run:
        run.until(lambda: False)
    with pytest.raises(AssertionError, match="exit code 3\nwords"):
        ended(["sh", "-c", "echo words; exit 3"])
    assert ended(["sh", "-c", "echo $OF >&2"], more={"OF": "mine"}).stderr == "mine\n"
