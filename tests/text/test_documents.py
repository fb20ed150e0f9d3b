"""Texts: what is a document, and what is said of files that are none."""

import json
import os
from pathlib import Path

import pytest

from ropewalk.errors import DataError
from ropewalk.record import Run
from ropewalk.text.documents import document_files, documents
from ropewalk.text.sources import sources


def test_a_text_file_is_one_document_and_a_jsonl_line_is_one(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n\ntwo\n")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.jsonl").write_text('{"text": "three"}\n\n{"text": "four", "more": 1}\n{"text": "  "}\n')
    (tmp_path / "ignored.bin").write_bytes(b"\0\1")
    found = list(documents(document_files([tmp_path])))
    assert [d.text for d in found] == ["one\n\ntwo\n", "three", "four"]
    assert [d.name for d in found] == ["a.txt", "b.jsonl:1", "b.jsonl:3"]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.txt", b"\xff\xfe\x00", "not UTF-8 text"),
        ("a.jsonl", b'{"text": 1}\n', "is not a text"),
        ("a.jsonl", b'{"txt": "a"}\n', "line 1 of"),
        ("a.jsonl", b'{"text": "a"}\n{"text": \n', "line 2 of"),
        ("a.jsonl", b'["text"]\n', "line 1 of"),
        (
            "a.jsonl",
            b'{"text": "lone \\ud800 surrogate"}\n',
            r"a.jsonl holds half a surrogate pair, \ud800, at character 5",
        ),
        ("a.jsonl", b'{"text": "a"}\n' * 2500 + b'{"text": "\xff"}\n', "line 2501 of"),
        ("a.jsonl", b'{"text": "a"}\n' * 2500 + b'{"text": "\xff"}\n', "is not UTF-8 text (byte 35010 of the file)"),
    ],
)
def test_broken_files_are_named_with_the_line(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as error:
        list(documents(document_files([tmp_path / name])))
    assert says in str(error.value) and name in str(error.value)


def test_missing_paths_and_empty_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such text"):
        document_files([tmp_path / "none.txt"])
    with pytest.raises(DataError, match="no texts in the folder"):
        document_files([tmp_path])


@pytest.mark.parametrize("place", ["m1", "deep/m1"])
def test_what_a_run_left_below_a_searched_folder_is_no_text(place: str, tmp_path: Path) -> None:
    """Else a folder of texts that holds an --out could be read only once."""
    out = tmp_path / "corpus" / place
    (out / "more").mkdir(parents=True)
    Run(command="evaluate", given={}, resolved={}, ropes={}, seed=0, code={}, packages={}).write(out)
    for name in ("pieces.jsonl", "more/notes.txt"):
        (out / name).write_text(json.dumps({"piece": 1}) + "\n")
    with pytest.raises(DataError, match="not in folders that ropewalk made"):
        document_files([tmp_path / "corpus"])
    theirs = tmp_path / "corpus" / "theirs"
    theirs.mkdir()
    (theirs / "run.json").write_text('{"command": "other"}')
    (theirs / "a.txt").write_text("a text")
    assert document_files([tmp_path / "corpus"]) == [theirs / "a.txt"]
    assert [path.name for path in document_files([out])] == ["notes.txt", "pieces.jsonl"]  # asked for by name


def test_names_that_are_empty_and_files_that_are_none_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/null")):
        with pytest.raises(DataError, match="is not a plain file"):
            document_files([path])
    for name in ("", " "):
        with pytest.raises(DataError, match="--data names nothing"):
            sources(["pilot", name])
