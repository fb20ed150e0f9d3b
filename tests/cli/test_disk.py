"""A disk that gives out in mid-write, by a real limit on the size of a file: one message, nothing lost, resumable."""

import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ropewalk.extension import extend
from ropewalk.record import read_run


def limited(size: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def ropewalk(*arguments: object, size: int | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ropewalk", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, preexec_fn=limited(size) if size else None, check=False
    )


def assert_one_message(done: subprocess.CompletedProcess[str], says: str) -> None:
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr and "OutputError" in done.stderr and says in done.stderr


def test_extend_leaves_nothing(tiny_llama: Path, tmp_path: Path) -> None:
    assert_one_message(ropewalk("extend", tiny_llama, "--to", 128, "--out", tmp_path / "x", size=500), "File too large")
    assert not list(tmp_path.iterdir())


@pytest.mark.model
@pytest.mark.parametrize("size", [3_000, 20_000])
def test_tune_goes_on_when_there_is_room(tiny_llama: Path, texts: Path, tmp_path: Path, size: int) -> None:
    """At 3,000 bytes the log gives out, at 20,000 the weights of a save."""
    extend(tiny_llama, to=128, out=tmp_path / "long")
    command = ["tune", tmp_path / "long", "--data", texts, "--steps", 40, "--save-every", 10, "--out"]
    assert_one_message(ropewalk(*command, tmp_path / "tuned", size=size), "--resume")
    done = ropewalk(*command, tmp_path / "tuned", "--resume")
    assert done.returncode == 0, done.stderr
    assert ropewalk(*command, tmp_path / "whole").returncode == 0
    ours, theirs = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("tuned", "whole"))
    assert ours == theirs


@pytest.mark.model
def test_evaluate_goes_on_when_there_is_room(tiny_llama: Path, texts: Path, tmp_path: Path) -> None:
    command = ["evaluate", tiny_llama, "--data", texts, "--lengths", "32,400", "--stride", 32, "--out"]
    assert ropewalk(*command, tmp_path / "whole").returncode == 0
    size = (tmp_path / "whole" / "pieces.jsonl").stat().st_size // 2
    assert_one_message(ropewalk(*command, tmp_path / "x", size=max(size, 3000)), "--resume")
    done = ropewalk(*command, tmp_path / "x", "--resume")
    assert done.returncode == 0, done.stderr
    assert read_run(tmp_path / "x").results == read_run(tmp_path / "whole").results
