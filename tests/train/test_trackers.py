"""Trackers: what they show is what log.jsonl says, once a step, also after a run was stopped; none is needed."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ropewalk.cli import app
from ropewalk.errors import DataError
from ropewalk.train.loop import Trainer
from ropewalk.train.trackers import FIGURES, known_trackers
from ropewalk.train.tune import tune

OPTIONS = {"steps": 8, "save_every": 3, "learning_rate": 3e-3}


def needs(name: str) -> pytest.MarkDecorator:
    there = importlib.util.find_spec(name) is not None
    return pytest.mark.skipif(not there, reason=f"{name} is not installed")


def logged(out: Path) -> dict[int, dict[str, float]]:
    entries = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return {entry["step"]: {key: entry[key] for key in FIGURES} for entry in entries}


def stop_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a kill would: two steps after the last save, and nothing is closed in order."""
    one_step = Trainer._one_step

    def broken(self: Trainer) -> dict[str, float]:
        if self.step == step:
            raise MemoryError
        return one_step(self)

    monkeypatch.setattr(Trainer, "_one_step", broken)


@needs("tensorboard")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_shows_each_step_once(
    tiny_llama: Path, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through two stops, each beyond the last save; figures are stored as float32."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    out = tmp_path / "out"
    for step in (5, 7):
        stop_at(step, monkeypatch)
        with pytest.raises(MemoryError):
            tune(tiny_llama, out=out, data=[texts], track=["tensorboard"], resume=True, **OPTIONS)
        monkeypatch.undo()
    tune(tiny_llama, out=out, data=[texts], track=["tensorboard"], resume=True, **OPTIONS)
    shown = EventAccumulator(str(out / "tensorboard")).Reload()
    assert set(shown.Tags()["scalars"]) == set(FIGURES)
    for key in FIGURES:
        points = [(event.step, event.value) for event in shown.Scalars(key)]
        assert points == [(step, pytest.approx(entry[key], rel=1e-6)) for step, entry in logged(out).items()]
    assert shown.Tags()["tensors"] == ["settings/text_summary"]


READ_BACK = """
import json, sys
from pathlib import Path
from ropewalk.train.loop import Trainer
from ropewalk.train.tune import tune
from ropewalk.record import read_run
model, texts, out, name, *steps = sys.argv[1:]
one_step = Trainer._one_step
for step in [*map(int, steps), None]:
    def broken(self):
        if self.step == step:
            raise MemoryError
        return one_step(self)
    Trainer._one_step = broken
    try:
        tune(model, out=out, data=[texts], track=[name], resume=True, steps=8, save_every=3, learning_rate=3e-3)
    except MemoryError:
        pass
"""
# A .wandb file is a log in LevelDB's format behind 7 bytes of its own: blocks of 32 KiB, in each of them parts of
# records behind 7 bytes (a checksum, the size, and whether the record is whole, begins, goes on or ends).
READ_WANDB = """
import struct
from wandb.proto import wandb_internal_pb2
def records(data):
    place, parts = 7, b""
    while place < len(data):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        _, size, kind = struct.unpack("<IHB", data[place:place + 7])
        parts += data[place + 7:place + 7 + size]
        place += 7 + size
        if kind in (1, 4):
            yield parts
            parts = b""
told = []
for path in sorted(Path(out).glob("wandb/offline-run-*/*.wandb")):
    for data in records(path.read_bytes()):
        record = wandb_internal_pb2.Record.FromString(data)
        if record.WhichOneof("record_type") == "history":
            items = {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            told.append([items["_step"], items["loss"]])
print(json.dumps(told))
"""
READ_TRACKIO = """
import sqlite3
database = sqlite3.connect(next(Path(sys.argv[3]).parent.glob("trackio/*.db")))
rows = database.execute("select step, metrics from metrics where run_name like 'out-%' order by step").fetchall()
print(json.dumps([[step, json.loads(metrics)["loss"]] for step, metrics in rows]))
"""


@pytest.mark.model
@pytest.mark.parametrize(
    ("name", "read"),
    [
        pytest.param("wandb", READ_WANDB, marks=needs("wandb")),
        pytest.param("trackio", READ_TRACKIO, marks=needs("trackio")),
    ],
)
def test_offline_each_step_is_told_once(
    name: str, read: str, tiny_llama: Path, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a process of its own, for their warnings and threads; through two stops, as above. Standard output is clean."""
    for variable in ("WANDB_MODE", "WANDB_PROJECT", "TRACKIO_SPACE_ID"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    out = tmp_path / "out"
    command = [sys.executable, "-c", READ_BACK + read, str(tiny_llama), str(texts), str(out), name, "5", "7"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [[step, entry["loss"]] for step, entry in logged(out).items()]


def test_a_tracker_that_is_not_here_is_refused_before_any_work(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for name in ("tensorboard", "wandb", "trackio"):
        with pytest.raises(DataError, match=rf"(?s)--track {name} needs.*pip install 'ropewalk\[{name}\]'"):
            tune(tiny_llama, out=tmp_path / "out", track=[name])
    assert not (tmp_path / "out").exists()


def test_a_folder_of_that_name_is_no_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """wandb itself leaves a folder wandb where it is run, and Python takes that for a package."""
    (tmp_path / "trackers_made_this").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("ropewalk.train.trackers.TRACKERS", ("trackers_made_this",))
    assert importlib.util.find_spec("trackers_made_this") is not None
    with pytest.raises(DataError, match="which is not here"):
        known_trackers(["trackers_made_this"])


def test_unknown_trackers_name_the_closest(tiny_llama: Path, tmp_path: Path) -> None:
    command = ["tune", str(tiny_llama), "--out", str(tmp_path / "out"), "--track", "wanbd,trackio"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 2 and "Did you mean 'wandb'" in done.output
