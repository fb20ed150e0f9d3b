"""A run of two ranks loses one, and goes on with another number of them: it ends where it would have ended."""

import contextlib
import json
import os
import random
import re
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ropewalk.atomic import alone_in
from ropewalk.errors import OutputError
from ropewalk.extension import extend
from ropewalk.record import read_run
from ropewalk.train.state import saves
from tests.conftest import TEXT, make_llama
from tests.ranks.launching import Started, ended, launched, pid_of, started, torchrun

STEPS, KILLS = 40, 10
EVERY = 3  # steps to a save
BOUND = 60.0  # seconds from a rank's death to the end of all; torchrun kills after 30 what does not end when told to


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Path) -> tuple[list[str], Path]:
    """The arguments of a run in float64, and what it comes to when nobody disturbs it."""
    folder = tmp_path_factory.mktemp("killed")
    tiny = make_llama(folder / "tiny", tiny_tokenizer, num_attention_heads=4, num_key_value_heads=2, dtype="float64")
    config = json.loads((tiny / "config.json").read_text())
    (tiny / "config.json").write_text(json.dumps(config | {"dtype": "float64"}))
    extend(tiny, to=128, out=folder / "long")
    (folder / "text.txt").write_text(TEXT)
    arguments = [
        "-m", "ropewalk", "tune", str(folder / "long"), "--data", str(folder / "text.txt"), "--steps", str(STEPS),
        "--learning-rate", "3e-3", "--save-every", str(EVERY), "--dtype", "float64", "--resume",
    ]  # fmt: skip
    ended([sys.executable, *arguments, "--out", str(folder / "whole")])
    return arguments, folder


def steps_logged(out: Path) -> int:
    log = out / "log.jsonl"
    return log.read_text().count("\n") if log.exists() else 0


def killed(arguments: list[str], out: Path, rng: random.Random) -> tuple[float, str, int]:
    """Seconds from the death of one rank to the end of all, what they wrote, and which rank it was.

    It dies at any moment of the steps up to the next but one save, and of that save.
    """
    victim, step = rng.randrange(2), rng.randrange(1 + EVERY, STEPS - 3 * EVERY)
    with started(torchrun(2, *arguments, "--out", str(out))) as run:
        run.until(lambda: steps_logged(out) >= step - EVERY)
        began = time.monotonic()
        run.until(lambda: steps_logged(out) >= step)
        time.sleep(rng.uniform(0, time.monotonic() - began))  # as long as as many steps with a save among them took
        died = kill(run, victim)
        assert run.ended() != 0
        return time.monotonic() - died, run.said(), victim


def kill(run: Started, rank: int) -> float:
    """When it did."""
    os.kill(pid_of(rank, run), signal.SIGKILL)
    return time.monotonic()


def far(a: Path, b: Path) -> float:
    ours, theirs = load_file(a / "model.safetensors"), load_file(b / "model.safetensors")
    assert ours.keys() == theirs.keys()
    assert all(tensor.dtype == torch.float64 for tensor in ours.values())
    return max(float((ours[name] - theirs[name]).abs().max()) for name in ours)


@pytest.mark.ranks
@pytest.mark.parametrize("number", range(KILLS))
def test_a_run_that_lost_a_rank_goes_on_with_any_number(
    begun: tuple[list[str], Path], number: int, tmp_path: Path
) -> None:
    arguments, folder = begun
    seconds, output, victim = killed(arguments, tmp_path / "run", random.Random(number))
    steps = steps_logged(tmp_path / "run")
    print(f"kill {number}: rank {victim} after step {steps}, {seconds:.1f} s until all had ended")
    assert seconds < BOUND
    said = re.findall(r"^RankError: .*$", output, re.MULTILINE)
    assert len(said) == 1, output  # one rank is left, and says what became of the run
    assert "another process of this run is gone: tuning stopped in step" in said[0]
    assert not re.search(r"^Traceback[^\n]*\n  File \"[^\n]*src/ropewalk", output, re.MULTILINE), output
    if victim == 1:
        assert read_run(tmp_path / "run").status == "failed"
    for count in (1, 2, 4):
        out = tmp_path / f"on-{count}"
        shutil.copytree(tmp_path / "run", out)
        more = ["--sequence-parallel", "2"] if count > 1 and number % 2 else []
        launched(count, *arguments, "--out", str(out), *more)
        assert_whole(out, folder / "whole")


def assert_whole(out: Path, whole: Path) -> None:
    """As if nobody had disturbed it, and nothing of what was begun and not finished is left."""
    assert far(out, whole) < 1e-8
    assert steps_logged(out) == STEPS and read_run(out).status == "done"
    assert {path.name for path in out.iterdir()} == {path.name for path in whole.iterdir()}
    assert [path.name for path in (out / "saves").iterdir()] == [f"step-{STEPS:06d}"]


@pytest.mark.ranks
@pytest.mark.parametrize("number", range(2))
@pytest.mark.parametrize("moment", ["while it begins again", "while it writes what it leaves"])
def test_a_rank_may_die_before_the_first_step_or_after_the_last(
    begun: tuple[list[str], Path], moment: str, number: int, tmp_path: Path
) -> None:
    """When weights and a save are read, and when the tuned checkpoint is written, by the first rank with what all send.

    Nobody may speak then: torchrun's SIGTERM ends the other at once.
    """
    arguments, folder = begun
    out, rng = tmp_path / "run", random.Random(f"{moment} {number}")
    if moment == "while it begins again":
        shutil.copytree(begun_once(arguments, folder), out)
    with started(torchrun(2, *arguments, "--out", str(out))) as run:
        if moment == "while it begins again":
            run.until(lambda: read_run(out).status == "started")
        else:
            run.until(lambda: steps_logged(out) == STEPS)
        time.sleep(rng.uniform(0, 0.3))
        status, steps = read_run(out).status, steps_logged(out)
        with contextlib.suppress(StopIteration, ProcessLookupError):  # it was quicker
            kill(run, number % 2)
        code = run.ended()
        told = len(re.findall(r"^RankError: .* is gone: ", run.said(), re.MULTILINE))
        assert told <= 1, run.said()
    print(f"{moment}, {number}: status {status}, {steps} steps logged, exit code {code}")
    assert code or read_run(out).status == "done"
    launched(2, *arguments, "--out", str(out))
    assert_whole(out, folder / "whole")


def begun_once(arguments: list[str], folder: Path) -> Path:
    """A run that was stopped after some steps."""
    out = folder / "stopped"
    if not out.exists():
        with started(torchrun(2, *arguments, "--out", str(out))) as run:
            run.until(lambda: steps_logged(out) >= 2 * EVERY)
            os.kill(pid_of(0, run), signal.SIGTERM)
            assert run.ended() != 0
        assert read_run(out).status == "interrupted" and steps_logged(out) < STEPS
    return out


@pytest.mark.ranks
@pytest.mark.parametrize("to", ["the terminal", "one rank", "every process, and torchrun passes it on"])
def test_a_signal_stops_all_ranks_after_a_save(begun: tuple[list[str], Path], to: str, tmp_path: Path) -> None:
    """Ctrl-C reaches torchrun, which tells its ranks; SIGTERM, as a scheduler sends it, may reach one rank alone, or each
    of them twice. The step in hand is the last, for all; meanwhile the folder is held by the first rank, and by it alone.
    """
    arguments, folder = begun
    out = tmp_path / "run"
    with started(torchrun(2, *arguments, "--out", str(out))) as run:
        run.until(lambda: steps_logged(out) >= 5)
        with pytest.raises(OutputError, match="is being written to by another process"), alone_in(out):
            pass
        if to == "the terminal":
            os.killpg(run.pid, signal.SIGINT)
        elif to == "one rank":
            os.kill(pid_of(1, run), signal.SIGTERM)
        else:
            for pid in (pid_of(0, run), pid_of(1, run), run.pid):
                os.kill(pid, signal.SIGTERM)
        code, output = run.ended(), run.said()
    assert code and output.count("go on with --resume") == 1, output
    assert not re.search(r"^Traceback[^\n]*\n  File \"[^\n]*src/ropewalk", output, re.MULTILINE), output
    (saved,) = saves(out)
    assert saved.step == steps_logged(out) < STEPS and read_run(out).status == "interrupted"
    launched(2, *arguments, "--out", str(out))
    assert_whole(out, folder / "whole")


@pytest.mark.ranks
def test_torchrun_begins_anew_from_the_last_save(begun: tuple[list[str], Path], tmp_path: Path) -> None:
    """With --max-restarts and --resume nobody needs to be there when a rank dies."""
    arguments, folder = begun
    out = tmp_path / "run"
    with started(torchrun(2, *arguments, "--out", str(out), restarts=2)) as run:
        run.until(lambda: steps_logged(out) >= STEPS // 2)
        kill(run, 1)
        code, output = run.ended(), run.said()
    assert code == 0, output
    assert output.count("RankError: another process of this run is gone") == 1
    assert_whole(out, folder / "whole")
