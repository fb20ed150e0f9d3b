"""Texts to train on or to score: .txt and other text files, .jsonl, and folders of them."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ropewalk.errors import DataError

TEXT_SUFFIXES = frozenset({".txt", ".md", ".rst", ".py"})  # looked for in folders; a file given by name may be any text
JSONL_SUFFIXES = frozenset({".jsonl", ".ndjson"})
TEXT_FIELD = "text"


@dataclass(frozen=True)
class Document:
    """One text that is scored on its own, and where it came from."""

    name: str
    text: str


def document_files(paths: Sequence[Path]) -> list[Path]:
    """The files behind the given paths, folders searched to the bottom, in a fixed order.

    Raises DataError for a path that is not there, or a folder without texts.
    """
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            suffixes = TEXT_SUFFIXES | JSONL_SUFFIXES
            found = sorted(p for p in path.rglob("*") if p.suffix in suffixes and p.is_file())
            if not found:
                raise DataError(
                    f"no texts in the folder {path}.\n"
                    f"  Looked for {', '.join(sorted(suffixes))} in it and below.\n"
                    "  Give files by name, or another folder."
                )
            files += found
        elif path.is_file():
            files.append(path)
        else:
            raise DataError(f"no such text: {path}.\n  --data takes files (txt, jsonl) and folders.\n  Check the path.")
    return files


def documents(files: Sequence[Path]) -> Iterator[Document]:
    """The documents of each file in turn: a text file is one, a line of a jsonl file is one. Empty ones are skipped."""
    for file in files:
        try:
            yield from _lines(file) if file.suffix in JSONL_SUFFIXES else _whole(file)
        except UnicodeDecodeError as error:
            raise DataError(
                f"{file} is not UTF-8 text (byte {error.start}).\n"
                "  Texts are read as UTF-8; is it a binary file?\n"
                "  Convert it, or leave it out."
            ) from None
        except OSError as error:
            raise DataError(f"{file} cannot be read: {error.strerror}.") from None


def _whole(file: Path) -> Iterator[Document]:
    text = file.read_text(encoding="utf-8")
    if text.strip():
        yield Document(file.name, text)


def _lines(file: Path) -> Iterator[Document]:
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                text = json.loads(line)[TEXT_FIELD]
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise DataError(
                    f"line {number} of {file} is not a document: {error!r}.\n"
                    f'  Each line of a jsonl file is an object with a field "{TEXT_FIELD}".\n'
                    "  Correct the line."
                ) from None
            if not isinstance(text, str):
                raise DataError(f'line {number} of {file}: the field "{TEXT_FIELD}" is not a text.')
            if text.strip():
                yield Document(f"{file.name}:{number}", text)
