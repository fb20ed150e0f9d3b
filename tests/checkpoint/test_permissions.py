"""Folders that may not be written or not be read: one message, nothing left behind, and a source needs no more than reading."""

import ctypes
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ropewalk.errors import OutputError
from ropewalk.exporting.export import export
from ropewalk.record import read_run

DROP_FROM_BOUNDING_SET, OVERRIDES = 24, (1, 2)  # prctl; CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH


def bound_by_permissions() -> None:
    """Root reads and writes everything; here it may only what the modes of its files say."""
    if os.geteuid() == 0:
        for capability in OVERRIDES:
            ctypes.CDLL(None).prctl(DROP_FROM_BOUNDING_SET, capability, 0, 0, 0)


def ropewalk(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ropewalk", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=bound_by_permissions)


def assert_one_message(done: subprocess.CompletedProcess[str], *says: str) -> None:
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr and done.stdout == ""
    assert all(part in done.stderr for part in says), done.stderr


@pytest.fixture
def model(tiny_llama: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of a model whose config.json is in one schema, so that --fix has something to write."""
    folder = tmp_path / "source" / "model"
    shutil.copytree(tiny_llama, folder)
    config = json.loads((folder / "config.json").read_text())
    config = {key: value for key, value in config.items() if key not in ("rope_theta", "rope_scaling")}
    (folder / "config.json").write_text(json.dumps(config))
    yield folder
    for path in (folder.parent, folder, *folder.iterdir()):
        path.chmod(0o755)


def read_only(folder: Path) -> Path:
    for path in (*folder.iterdir(), folder):
        path.chmod(path.stat().st_mode & 0o555)
    return folder


def test_a_source_that_may_only_be_read_is_enough(model: Path, tmp_path: Path) -> None:
    done = ropewalk("extend", read_only(model), "--to", 128, "--out", tmp_path / "long")
    assert done.returncode == 0, done.stderr
    done = ropewalk("export", model, "--out", tmp_path / "file")
    assert done.returncode == 0, done.stderr
    assert [read_run(tmp_path / name).status for name in ("long", "file")] == ["done", "done"]


def test_a_folder_that_may_not_be_written_is_not_mended(model: Path) -> None:
    before = (model / "config.json").read_bytes()
    done = ropewalk("check", read_only(model), "--fix")
    assert_one_message(done, "OutputError: cannot write", "Permission denied", "ropewalk extend writes")
    assert (model / "config.json").read_bytes() == before


@pytest.mark.parametrize("arguments", [["extend", "--to", 128], ["export"]], ids=lambda a: a[0])
def test_an_output_where_nothing_may_be_written(model: Path, tmp_path: Path, arguments: list[object]) -> None:
    place = tmp_path / "place"
    place.mkdir(mode=0o555)
    verb, *options = arguments
    done = ropewalk(verb, model, *options, "--out", place / "out")
    assert_one_message(done, f"OutputError: cannot write in {place}: Permission denied", "Give another --out")
    assert not list(place.iterdir())


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_file_that_may_not_be_read_is_named(model: Path, tmp_path: Path, name: str) -> None:
    (model / name).chmod(0)
    done = ropewalk("extend", model, "--to", 128, "--out", tmp_path / "long")
    assert_one_message(done, f"CheckpointError: {model / name} cannot be read: Permission denied", "permissions")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_folder_in_one_that_may_not_be_searched(model: Path) -> None:
    model.parent.chmod(0o444)
    assert_one_message(ropewalk("inspect", model), f"CheckpointError: {model} cannot be read: Permission denied")


def test_an_export_into_its_own_source_is_refused(model: Path) -> None:
    with pytest.raises(OutputError, match="never written to"):
        export(model, out=model / "file")
    assert not (model / "file").exists()
