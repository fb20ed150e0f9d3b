"""Texts to train on or to score: .txt and other text files, .jsonl, .parquet, and folders of them."""

import hashlib
import importlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ropewalk.atomic import UNFINISHED
from ropewalk.errors import DataError
from ropewalk.record import is_run_folder

TEXT_SUFFIXES = frozenset({".txt", ".md", ".rst", ".py"})  # looked for in folders; a file given by name may be any text
JSONL_SUFFIXES = frozenset({".jsonl", ".ndjson"})
PARQUET_SUFFIXES = frozenset({".parquet"})
TEXT_FIELD = "text"
PARQUET_ROWS = 64  # of a file that are in memory at once: texts of books are large


@dataclass(frozen=True)
class Document:
    """One text that is scored on its own, and where it came from."""

    name: str
    text: str

    @property
    def sha256(self) -> str:
        """What tells this text from others, wherever it lies; white space around it counts for nothing.

        >>> Document("a.txt", "one ").sha256 == Document("b.jsonl:1", "one").sha256
        True
        """
        return text_sha256(self.text)


def text_sha256(text: str) -> str:
    """The digest of a document; half a surrogate pair, which JSON can hold, has one too."""
    return hashlib.sha256(text.strip().encode("utf-8", "surrogatepass")).hexdigest()


def needed(module: str, what: str, extra: str) -> Any:
    """A module that is imported only where it is used. Raises DataError with what to install."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise DataError(
            f"{what} need {error.name}: {error}.\n"
            "  Not everyone does, so it is not among what every installation has.\n"
            f"  Install it: pip install 'ropewalk[{extra}]'."
        ) from None


def document_files(paths: Sequence[Path]) -> list[Path]:
    """The files behind the given paths, folders searched to the bottom, in a fixed order.

    Folders that a run of ours left below are passed over: what they hold are results. Raises DataError for a path that is
    not there or no plain file, a folder without texts, or one of a model.
    """
    require_texts(paths)
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            files += _files_in(path)
        elif path.is_file():
            files.append(path)
        elif path.exists():
            raise DataError(
                f"{path} is not a plain file.\n"
                "  Texts are read more than once, first to know them again later; a pipe or a device gives them once.\n"
                "  Save the texts to a file and give that."
            )
        else:
            raise DataError(
                f"no such text: {path}.\n"
                "  --data takes files (txt, jsonl, parquet), folders, and data sets of the hub as hf:org/name.\n"
                "  Check the path."
            )
    return files


def require_texts(paths: Sequence[str | Path]) -> None:
    """Raises DataError for a folder with a model: its card would be taken for a text, and the model for none given."""
    for path in paths:
        if os.path.isfile(os.path.join(path, "config.json")):
            raise DataError(
                f"{path} is a model folder, and no text: it holds config.json.\n"
                "  All that follows --data up to the next option is texts.\n"
                "  MODEL comes before --data; files of that folder that are texts can be given by name."
            )


def _files_in(folder: Path) -> list[Path]:
    suffixes = TEXT_SUFFIXES | JSONL_SUFFIXES | PARQUET_SUFFIXES
    ours: dict[Path, bool] = {folder: False}  # of those below it alone: who names a run's folder means what is in it

    def is_ours(below: Path) -> bool:
        if below not in ours:
            ours[below] = is_ours(below.parent) or is_run_folder(below)
        return ours[below]

    found = [p for p in folder.rglob("*") if p.suffix in suffixes and p.is_file() and _is_whole(p, folder)]
    found = sorted(p for p in found if not is_ours(p.parent))
    if not found:
        raise DataError(
            f"no texts in the folder {folder}.\n"
            f"  Looked for {', '.join(sorted(suffixes))} in it and below, but not in folders that ropewalk made.\n"
            "  Give files by name, or another folder."
        )
    return found


def _is_whole(file: Path, folder: Path) -> bool:
    """Not in what a killed run of ours left half made."""
    return not any(UNFINISHED.fullmatch(part) for part in file.relative_to(folder).parts)


def require_characters(text: str, where: str) -> None:
    """Raises DataError for half a surrogate pair, which JSON can hold: no tokenizer takes it."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{where} holds half a surrogate pair, \\u{ord(text[error.start]):04x}, at character {error.start}.\n"
            "  It stands for no character, so that no tokenizer has tokens for it.\n"
            "  Correct the text, or take it out."
        ) from None


def documents(files: Sequence[Path]) -> Iterator[Document]:
    """The documents of each file in turn, each read when it is asked for; empty ones are skipped.

    A text file is one document, a line of a jsonl file is one, a row of a parquet file is one.
    """
    for file in files:
        try:
            yield from _reader(file)(file)
        except UnicodeDecodeError as error:
            raise DataError(
                f"{file} is not UTF-8 text (byte {error.start}).\n"
                "  Texts are read as UTF-8; is it a binary file?\n"
                "  Convert it, or leave it out."
            ) from None
        except OSError as error:
            raise DataError(f"{file} cannot be read: {error.strerror}.") from None


def _reader(file: Path) -> Callable[[Path], Iterator[Document]]:
    if file.suffix in JSONL_SUFFIXES:
        return _lines
    return _rows if file.suffix in PARQUET_SUFFIXES else _whole


def _whole(file: Path) -> Iterator[Document]:
    text = file.read_text(encoding="utf-8")
    if text.strip():
        yield Document(file.name, text)


def _lines(file: Path) -> Iterator[Document]:
    before = 0  # bytes of the lines above
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            before += len(line)
            if not line.strip():
                continue
            try:
                text = json.loads(line.decode())[TEXT_FIELD]
            except UnicodeDecodeError as error:
                raise DataError(
                    f"line {number} of {file} is not UTF-8 text (byte {before - len(line) + error.start} of the file).\n"
                    "  Texts are read as UTF-8.\n"
                    "  Convert the file, or correct the line."
                ) from None
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise DataError(
                    f"line {number} of {file} is not a document: {error!r}.\n"
                    f'  Each line of a jsonl file is an object with a field "{TEXT_FIELD}".\n'
                    "  Correct the line."
                ) from None
            if not isinstance(text, str):
                raise DataError(f'line {number} of {file}: the field "{TEXT_FIELD}" is not a text.')
            require_characters(text, f"line {number} of {file}")
            if text.strip():
                yield Document(f"{file.name}:{number}", text)


def _rows(file: Path) -> Iterator[Document]:
    parquet = needed("pyarrow.parquet", "parquet files", "data")
    number = 0
    try:
        with parquet.ParquetFile(file) as table:
            columns = table.schema_arrow.names
            if TEXT_FIELD not in columns:
                raise DataError(
                    f'{file} has no column "{TEXT_FIELD}".\n'
                    f"  Each row is a document, its text in that column; there are {', '.join(columns)}.\n"
                    "  Rename the column that holds the texts."
                )
            for batch in table.iter_batches(batch_size=PARQUET_ROWS, columns=[TEXT_FIELD]):
                for text in batch.column(0).to_pylist():
                    number += 1
                    if text is not None and not isinstance(text, str):
                        raise DataError(
                            f'row {number} of {file}: the column "{TEXT_FIELD}" holds {type(text).__name__}, not a text.'
                        )
                    require_characters(text or "", f"row {number} of {file}")
                    if text and text.strip():
                        yield Document(f"{file.name}:{number}", text)
    except (DataError, UnicodeDecodeError, OSError):
        raise
    except (ValueError, NotImplementedError) as error:  # pyarrow's own errors are of these kinds
        raise DataError(f"{file} is not a whole parquet file: {error}.\n  Fetch it again.") from None
