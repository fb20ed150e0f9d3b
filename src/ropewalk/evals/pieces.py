"""Results so far, one line a piece of work: what lets a killed evaluation go on where it stopped."""

import contextlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any


class Pieces:
    """An append-only file of named results. A line that was cut off is done again."""

    def __init__(self, path: Path):
        self.path = path
        self._known: dict[str, Any] = {}
        if path.exists():
            self._read()

    def _read(self) -> None:
        whole = b""
        for line in self.path.read_bytes().splitlines(keepends=True):
            if not line.endswith(b"\n"):
                break
            try:
                entry = json.loads(line)
                self._known[entry["piece"]] = entry["result"]
            except (ValueError, KeyError, TypeError):
                break
            whole += line
        with self.path.open("r+b") as file:  # what follows a cut line would be glued to it
            file.truncate(len(whole))

    def __contains__(self, name: str) -> bool:
        return name in self._known

    def __getitem__(self, name: str) -> Any:
        return self._known[name]

    def items(self) -> Iterable[tuple[str, Any]]:
        return self._known.items()

    def add(self, name: str, result: Any) -> None:
        line = json.dumps({"piece": name, "result": result}) + "\n"
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            before = os.fstat(handle).st_size
            try:
                _write_all(handle, line.encode())
            except OSError:  # half a line would be glued to the next one
                with contextlib.suppress(OSError):
                    os.ftruncate(handle, before)
                raise
        finally:
            os.close(handle)
        self._known[name] = json.loads(line)["result"]


def _write_all(handle: int, data: bytes) -> None:
    """A disk that is nearly full takes a part and says so in the count alone."""
    left = memoryview(data)
    while left:
        left = left[os.write(handle, left) :]
