"""Checkpoints from strangers: each lie is refused with one message, soon, in little memory, and nothing is touched."""

import json
import re
from pathlib import Path

import pytest

from tests.faults.forks import Ended, ended
from tests.faults.hostile import CHECKPOINTS
from tests.faults.made import checkpoint, state_of
from tests.faults.work import bounded_verb

MEMORY = 700 * 2**20  # bytes beyond what the process began with
SECONDS = 20
OURS = re.compile(r"^(Checkpoint|Rope|Record|Data|Output)Error: ", re.MULTILINE)


def assert_one_message(done: Ended) -> None:
    """One error of ours in three parts, and nothing after it: what is wrong; what was expected; what to do."""
    assert done.code == 2, done.said[-2000:]
    begin = OURS.search(done.said)
    assert begin and "Traceback" not in done.said, done.said[-2000:]
    message = done.said[begin.start() :]
    lines = message.rstrip("\n").split("\n")
    assert len(lines) >= 3 and all(line.startswith("  ") for line in lines[1:]), done.said
    assert len(message) < 2_000 and not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", message)


def answer(*arguments: object, log: Path) -> Ended:
    return ended(bounded_verb, MEMORY, SECONDS, *arguments, log=log)


def test_the_sound_one_is_taken(tmp_path: Path) -> None:
    """Without it, every refusal below could have a reason of its own."""
    folder = checkpoint(tmp_path / "place" / "model")
    for number, options in enumerate((["inspect", folder], ["extend", folder, "--to", 128, "--out", tmp_path / "x"])):
        done = answer(*options, log=tmp_path / f"log{number}")
        assert done.code == 0, done.said


@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_a_hostile_checkpoint_is_refused(kind: str, tmp_path: Path) -> None:
    folder, out = checkpoint(tmp_path / "place" / "model"), tmp_path / "place" / "long"
    CHECKPOINTS[kind](folder)
    before = state_of(tmp_path / "place")
    first = answer("inspect", folder, log=tmp_path / "a")
    assert_one_message(first)
    same = answer("inspect", folder, "--to", 128, "--json", log=tmp_path / "b")
    extended = answer("extend", folder, "--to", 128, "--out", out, log=tmp_path / "c")
    assert first.said == same.said == extended.said
    assert state_of(tmp_path / "place") == before


def test_plan_needs_the_config_alone(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    assert answer("plan", folder, "--json", log=tmp_path / "log").code == 0
    for number, kind in enumerate(kind for kind in CHECKPOINTS if kind.startswith("config: theta")):
        folder = checkpoint(tmp_path / f"model{number}")
        CHECKPOINTS[kind](folder)
        assert_one_message(answer("plan", folder, log=tmp_path / "log"))


def test_there_are_as_many_kinds_as_promised() -> None:
    assert len(CHECKPOINTS) >= 60


def test_what_is_printed_cannot_steer_the_terminal(tmp_path: Path) -> None:
    """Escape sequences, half a surrogate pair and letters that turn the line round, in names that are shown."""
    folder = checkpoint(tmp_path / "model")
    odd = "\x1b[2Jevil\ud800\u202e\x9b"
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": odd}))
    for options in (["inspect", folder], ["inspect", folder, "--json"], ["check", folder]):
        done = answer(*options, log=tmp_path / "log")
        assert done.code == 0 and not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]", done.said), done.said
    (folder / "config.json").write_text(json.dumps(config | {"rope_scaling": {"rope_type": "default", odd: 1}}))
    assert_one_message(answer("inspect", folder, log=tmp_path / "log"))
