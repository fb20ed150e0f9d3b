"""Texts: what is a document, and what is said of files that are none."""

from pathlib import Path

import pytest

from ropewalk.errors import DataError
from ropewalk.text.documents import document_files, documents


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
