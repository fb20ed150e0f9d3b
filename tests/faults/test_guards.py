"""Single guards, each by itself: quick enough to be tried with each change."""

import os
import shutil
from pathlib import Path

import pytest

from ropewalk.answers import show
from ropewalk.atomic import alone_in, remove_unfinished, write_text
from ropewalk.checkpoint.folder import link_or_copy
from ropewalk.checkpoint.output import whole_folder
from ropewalk.errors import CheckpointError, OutputError
from ropewalk.evals.pieces import Pieces
from ropewalk.reading import MAX_VALUES, parsed_json, read_bounded
from ropewalk.record import Run, read_run
from ropewalk.text.documents import document_files


def run(**given: object) -> Run:
    return Run(command="evaluate", given=given, resolved={}, ropes={}, seed=0)


def test_a_folder_has_one_writer_and_no_lock_file(tmp_path: Path) -> None:
    with alone_in(tmp_path):
        with pytest.raises(OutputError, match="being written to by another process"), alone_in(tmp_path):
            pass
        assert not list(tmp_path.iterdir())
    with alone_in(tmp_path):
        pass


@pytest.mark.parametrize(("status", "given"), [("done", {"a": 1}), ("started", {"a": 2})])
def test_work_that_another_did_meanwhile_is_not_done_over(tmp_path: Path, status: str, given: dict) -> None:
    there = run(**given)
    there.status = status
    there.write(tmp_path)
    with pytest.raises(OutputError, match="written to by another process just now"), run(a=1).recorded(tmp_path):
        pass
    assert read_run(tmp_path).status == status


def test_what_a_killed_process_left_is_cleared_away_and_what_a_living_one_makes_is_not(tmp_path: Path) -> None:
    dead, alive = tmp_path / ".out.ropewalk-abcd1234", tmp_path / ".out.ropewalk-efgh5678"
    for folder in (dead, alive):
        folder.mkdir()
        (folder / "half").write_text("")
    (tmp_path / ".run.json.ropewalk-ijkl9012").write_text("{")
    for name in (".hidden", ".out.original", ".out.backup12"):
        (tmp_path / name).write_text("of the user")
    with alone_in(alive):
        remove_unfinished(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".hidden", ".out.backup12", ".out.original", alive.name]


def test_a_page_that_appeared_meanwhile_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("theirs")
    with pytest.raises(OutputError, match="it was made while this was at work"):
        write_text(tmp_path / "page.html", "ours", new=True)
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
    assert (tmp_path / "page.html").read_text() == "theirs"


def test_a_folder_that_appeared_meanwhile_is_left_alone(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(OutputError, match="it was made while this was at work"), whole_folder(out) as beside:
        (beside / "file").write_text("ours")
        out.mkdir()
        (out / "file").write_text("theirs")
    assert (out / "file").read_text() == "theirs" and [path.name for path in tmp_path.iterdir()] == ["out"]


def test_half_made_texts_are_no_texts(tmp_path: Path) -> None:
    for folder in (".data.ropewalk-abcd1234", "data", ".notes"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "train.jsonl").write_text('{"text": "a"}\n')
    found = [path.parent.name for path in document_files([tmp_path])]
    assert found == [".notes", "data"]


def test_a_piece_that_the_disk_takes_a_part_of_is_whole_or_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A nearly full disk takes some bytes and says how many; only the next write says that it is full."""
    whole, room = os.write, [10]

    def nearly_full(handle: int, data: bytes) -> int:
        if not room[0]:
            raise OSError(28, "No space left on device")
        taken = whole(handle, bytes(data)[: room[0]])
        room[0] -= taken
        return taken

    pieces = Pieces(tmp_path / "pieces.jsonl")
    pieces.add("first", 1)
    before = (tmp_path / "pieces.jsonl").read_bytes()
    monkeypatch.setattr(os, "write", nearly_full)
    with pytest.raises(OSError, match="No space left"):
        pieces.add("second", [2] * 100)
    assert (tmp_path / "pieces.jsonl").read_bytes() == before and "second" not in pieces
    room[0] = 10**6
    pieces.add("second", [2] * 100)
    assert dict(Pieces(tmp_path / "pieces.jsonl").items()) == {"first": 1, "second": [2] * 100}


def test_weights_of_another_size_than_their_header_said_are_not_taken(tmp_path: Path) -> None:
    source = tmp_path / "model.safetensors"
    source.write_bytes(bytes(100))
    link_or_copy(source, tmp_path / "same", 100)
    with pytest.raises(CheckpointError, match=r"changed while .* had 101 bytes .* now 100"):
        link_or_copy(source, tmp_path / "other", 101)
    shutil.move(source, tmp_path / "moved")
    with pytest.raises(CheckpointError, match=r"changed while .* has gone"):
        link_or_copy(source, tmp_path / "third", 100)


def test_json_is_read_in_bounds(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="more than 2,000,000 values"):
        parsed_json(b"[" + b"1," * MAX_VALUES + b"1]")
    with pytest.raises(ValueError, match="nests too deeply"):
        parsed_json(b"[" * 100_000)
    with pytest.raises(ValueError, match="says 'a' twice"):
        parsed_json(b'{"a": 1, "a": 2}')
    assert parsed_json(b'{"a": [1], "a": [1]}') == {"a": [1]}
    (tmp_path / "file").write_bytes(bytes(11))
    with pytest.raises(ValueError, match="11 bytes, and such a file has at most 10"):
        read_bounded(tmp_path / "file", 10)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a plain file"):
        read_bounded(tmp_path / "pipe")


def test_answers_do_not_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    show("one\x1b[2J\ntwo\u202e\ud800\x9b")
    assert capsys.readouterr().out == "one\\u001b[2J\ntwo\\u202e\\ud800\\u009b\n"
