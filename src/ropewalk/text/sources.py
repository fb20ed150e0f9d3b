"""What stands behind --data: files, folders, and data sets of the hub, read one document after another.

    hf:org/name                  the hub's data set, its only or default configuration, the split "train"
    hf:org/name:config:split     either may be left empty: hf:org/name::validation
    hf:org/name@COMMIT           as it was then (a commit, tag or branch of the data set); with :config:split behind it too
    hf:./folder                  a data set that lies here; needs no network

Data sets are read as a stream through `datasets`: no more of them is fetched than is used. What is not done here:
shuffling them, which would read far ahead; rows of training are shuffled when they are cut.
"""

import os
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download

from ropewalk.errors import DataError
from ropewalk.record import input_file
from ropewalk.text.documents import TEXT_FIELD, Document, document_files, documents, needed, require_characters

HUB = "hf:"
SPLIT = "train"


@dataclass(frozen=True)
class HubDataSet:
    """A data set as it was asked for; `path` is org/name or a folder, `revision` None what the hub has now."""

    given: str
    path: str
    config: str | None
    split: str
    revision: str | None = None

    def documents(self) -> Iterator[Document]:
        """The texts in its own order. Raises DataError when it cannot be had or has no texts."""
        number = 0
        rows = iter(self._opened())
        while True:
            try:
                row = next(rows, None)
            except Exception as error:  # whatever the network, the hub's client or a broken file raises
                raise self._lost(error) from error
            if row is None:
                return
            number += 1
            text = row.get(TEXT_FIELD)
            if TEXT_FIELD not in row or not isinstance(text, str | None):
                raise DataError(
                    f'row {number} of {self.given} has no text in its column "{TEXT_FIELD}".\n'
                    f"  Each row is a document; the columns are {', '.join(row)}.\n"
                    "  Give a data set that has its texts there, or save them as jsonl."
                )
            require_characters(text or "", f"row {number} of {self.given}")
            if text and text.strip():
                yield Document(f"{self.given}:{number}", text)

    def _opened(self) -> Any:
        load_dataset = needed("datasets", "data sets of the hub", "data").load_dataset
        try:
            return load_dataset(self.path, name=self.config, split=self.split, revision=self.revision, streaming=True)
        except ConnectionError as error:  # what `hf download` has fetched is not looked for by `datasets`
            try:
                folder = snapshot_download(
                    self.path, repo_type="dataset", revision=self.revision, local_files_only=True
                )
                return load_dataset(folder, name=self.config, split=self.split, streaming=True)
            except Exception:
                raise self._lost(error) from error
        except Exception as error:
            raise self._lost(error) from error

    def _lost(self, error: Exception) -> DataError:
        lines = str(error).strip().splitlines()
        offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
        where = "HF_HUB_OFFLINE is set, so only what is in the hub's cache is found" if offline else "Looked on the hub"
        where = "It is a folder here" if Path(self.path).is_dir() else where
        return DataError(
            f"the data set {self.given} cannot be read: {lines[0] if lines else type(error).__name__}\n"
            f"  {where}; the configuration is {self.config or 'its default'}, the split {self.split}.\n"
            "  Write hf:org/name:config:split, check the name and the network, or give a folder: hf:./folder."
        )

    def as_input(self) -> dict[str, Any]:
        """How it is named in `inputs`. Its digest would be that of all of it; what was read has one of its own."""
        pinned = {} if self.revision is None else {"revision": self.revision}
        return {"path": self.given, "config": self.config, "split": self.split, **pinned}


@dataclass(frozen=True)
class Sources:
    """Files and data sets, in the order in which they are read: files first."""

    files: tuple[Path, ...]
    data_sets: tuple[HubDataSet, ...] = ()

    def shuffled(self, seed: int) -> "Sources":
        files = list(self.files)
        random.Random(seed).shuffle(files)
        return replace(self, files=tuple(files))

    def documents(self) -> Iterator[Document]:
        yield from documents(self.files)
        for data_set in self.data_sets:
            yield from data_set.documents()

    def inputs(self) -> list[dict[str, Any]]:
        return [*(input_file(file) for file in self.files), *(one.as_input() for one in self.data_sets)]


def sources(data: Sequence[str | Path]) -> Sources:
    """What the names given to --data stand for. Raises DataError for a path that is not there.

    >>> sources(["hf:org/name::test"]).data_sets[0].split
    'test'
    >>> sources(["hf:org/name@1a2b3c::test"]).data_sets[0].revision
    '1a2b3c'
    """
    named = [str(one) for one in data]
    if not all(one.strip() for one in named):
        raise DataError(
            "--data names nothing: the name is empty.\n"
            "  Expected a file, a folder, or a data set of the hub; a shell makes an empty name of a variable that is not set.\n"
            "  Name the texts, or . for the folder you are in."
        )
    files = document_files([Path(one) for one in named if not one.startswith(HUB)])
    return Sources(tuple(files), tuple(_data_set(one) for one in named if one.startswith(HUB)))


def _data_set(given: str) -> HubDataSet:
    path, *more = given.removeprefix(HUB).split(":")
    if not path or len(more) > 2:
        raise DataError(
            f"{given!r} is not a data set.\n"
            "  Expected hf:org/name, hf:org/name:config:split or hf:./folder.\n"
            "  Leave config or split empty for the default: hf:org/name::validation."
        )
    revision = None
    try:
        folder = Path(path).expanduser()
    except RuntimeError:  # ~name of nobody here
        folder = Path(path)
    if folder.is_dir():
        path = str(folder)
    elif path[0] in "./~":
        raise DataError(f"no such folder: {path}.\n  {given} names a data set that lies here.\n  Check the path.")
    elif "@" in path:
        path, _, revision = path.partition("@")
        if not path or not revision:
            raise DataError(
                f"{given!r} does not say what of which data set.\n"
                "  Expected hf:org/name@COMMIT, or hf:org/name for what the hub has now.\n"
                "  Name both, or leave the @ out."
            )
    config, split = (*more, "", "")[:2]
    return HubDataSet(given, path, config or None, split or SPLIT, revision)
