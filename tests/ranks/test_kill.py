"""A run of two ranks loses one, and goes on with another number of them: it ends where it would have ended."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
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
from tests.ranks.launching import ROOT, SECONDS, environment, launched, torchrun

STEPS, KILLS = 40, 10
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
        "--learning-rate", "3e-3", "--save-every", "3", "--dtype", "float64", "--resume",
    ]  # fmt: skip
    subprocess.run([sys.executable, *arguments, "--out", str(folder / "whole")], env=environment(), check=True)
    return arguments, folder


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def rank_of(pid: int) -> int:
    variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return int(next(v for v in variables if v.startswith(b"RANK=")).partition(b"=")[2])


def steps_logged(out: Path) -> int:
    log = out / "log.jsonl"
    return log.read_text().count("\n") if log.exists() else 0


def killed(arguments: list[str], out: Path, rng: random.Random) -> tuple[float, str, int]:
    """Seconds from the death of one rank to the end of all, what they wrote, and which rank it was."""
    victim, step, more = rng.randrange(2), rng.randrange(1, STEPS - 4), rng.uniform(0, 0.02)
    run = subprocess.Popen(
        torchrun(2, *arguments, "--out", str(out)), env=environment(), cwd=ROOT, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    while steps_logged(out) < step:
        assert run.poll() is None, run.communicate()[0]
        time.sleep(0.002)
    time.sleep(more)
    pid = next(pid for pid in children(run.pid) if rank_of(pid) == victim)
    os.kill(pid, signal.SIGKILL)
    died = time.monotonic()
    output = run.communicate(timeout=SECONDS)[0]
    assert run.returncode != 0
    return time.monotonic() - died, output, victim


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
        assert far(out, folder / "whole") < 1e-8
        assert steps_logged(out) == STEPS


@pytest.mark.ranks
@pytest.mark.parametrize("to", ["the terminal", "one rank"])
def test_a_signal_stops_all_ranks_after_a_save(begun: tuple[list[str], Path], to: str, tmp_path: Path) -> None:
    """Ctrl-C reaches torchrun, which tells its ranks; SIGTERM, as a scheduler sends it, may reach one rank alone. The step in hand is the last, for all; meanwhile the folder is held by the first rank, and by it alone."""
    arguments, folder = begun
    out = tmp_path / "run"
    run = subprocess.Popen(
        torchrun(2, *arguments, "--out", str(out)), env=environment(), cwd=ROOT, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    while steps_logged(out) < 5:
        assert run.poll() is None, run.communicate()[0]
        time.sleep(0.002)
    with pytest.raises(OutputError, match="is being written to by another process"), alone_in(out):
        pass
    if to == "the terminal":
        os.killpg(run.pid, signal.SIGINT)
    else:
        os.kill(next(pid for pid in children(run.pid) if rank_of(pid) == 1), signal.SIGTERM)
    output = run.communicate(timeout=SECONDS)[0]
    assert run.returncode and output.count("go on with --resume") == 1, output
    assert not re.search(r"^Traceback[^\n]*\n  File \"[^\n]*src/ropewalk", output, re.MULTILINE), output
    (saved,) = saves(out)
    assert saved.step == steps_logged(out) < STEPS and read_run(out).status == "interrupted"
    launched(2, *arguments, "--out", str(out))
    assert far(out, folder / "whole") < 1e-8


@pytest.mark.ranks
def test_torchrun_begins_anew_from_the_last_save(begun: tuple[list[str], Path], tmp_path: Path) -> None:
    """With --max-restarts and --resume nobody needs to be there when a rank dies."""
    arguments, folder = begun
    out = tmp_path / "run"
    with open(tmp_path / "said", "w+", encoding="utf-8") as said:
        run = subprocess.Popen(
            torchrun(2, *arguments, "--out", str(out), restarts=2),
            env=environment(),
            cwd=ROOT,
            stdout=said,
            stderr=said,
        )
        while steps_logged(out) < STEPS // 2:
            assert run.poll() is None, said.read()
            time.sleep(0.002)
        os.kill(children(run.pid)[1], signal.SIGKILL)
        code = run.wait(timeout=SECONDS)
        said.seek(0)
        output = said.read()
    assert code == 0, output
    assert output.count("RankError: another process of this run is gone") == 1
    assert far(out, folder / "whole") < 1e-8
    assert steps_logged(out) == STEPS
