"""A disk that gives out in mid-write, by a real limit on the size of a file: one message, nothing lost, resumable."""

import os
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


ANSWERS = [
    ["inspect", "MODEL", "--json"], ["inspect", "MODEL"], ["check", "MODEL", "--json"], ["check", "MODEL"],
    ["extend", "MODEL", "--to", 128, "--out", "x", "--json"], ["export", "MODEL", "--out", "x"],
]  # fmt: skip


@pytest.mark.parametrize("arguments", ANSWERS, ids=lambda a: f"{a[0]} {a[-1]}")
def test_an_answer_that_cannot_be_written_is_told_and_its_work_stays(
    arguments: list[object], tiny_llama: Path, tmp_path: Path
) -> None:
    named = {"MODEL": tiny_llama, "x": tmp_path / "x"}
    command = [sys.executable, "-m", "ropewalk", *(str(named.get(str(a), a)) for a in arguments)]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert_one_message(done, "cannot be written to standard output: No space left on device")
    if "x" in arguments:
        assert read_run(tmp_path / "x").status == "done"


def test_a_reader_that_has_gone_is_no_error_of_ours(tiny_llama: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "ropewalk", "inspect", str(tiny_llama), "--json"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")  # 128 and SIGPIPE, as the shell tells it


@pytest.mark.model
def test_tune_goes_on_when_there_is_room(tiny_llama: Path, texts: Path, tmp_path: Path) -> None:
    """At 5,000 bytes the log gives out, at 20,000 the weights of a save."""
    extend(tiny_llama, to=128, out=tmp_path / "long")
    command = ["tune", tmp_path / "long", "--data", texts, "--steps", 40, "--save-every", 10, "--out"]
    assert ropewalk(*command, tmp_path / "whole").returncode == 0
    for size in (5_000, 20_000):
        out = tmp_path / f"tuned-{size}"
        assert_one_message(ropewalk(*command, out, size=size), "--resume")
        done = ropewalk(*command, out, "--resume")
        assert done.returncode == 0, done.stderr
        assert (out / "model.safetensors").read_bytes() == (tmp_path / "whole" / "model.safetensors").read_bytes()


@pytest.mark.model
def test_evaluate_goes_on_when_there_is_room(tiny_llama: Path, texts: Path, tmp_path: Path) -> None:
    command = ["evaluate", tiny_llama, "--data", texts, "--lengths", "32,400", "--stride", 32, "--out"]
    assert ropewalk(*command, tmp_path / "whole").returncode == 0
    size = (tmp_path / "whole" / "pieces.jsonl").stat().st_size // 2
    assert_one_message(ropewalk(*command, tmp_path / "x", size=max(size, 3000)), "--resume")
    done = ropewalk(*command, tmp_path / "x", "--resume")
    assert done.returncode == 0, done.stderr
    assert read_run(tmp_path / "x").results == read_run(tmp_path / "whole").results
