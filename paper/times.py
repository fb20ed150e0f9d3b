"""How long each stage of `make.py` took, over all starts, and what it was made with; kept in stages.json."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from options import state_of

from ropewalk.record import code_state, package_versions, write_json

FORM = 2  # of the parts' facts: a part of another form is made anew, from the work that is there
PACKAGES = ("ropewalk", "python", "torch", "transformers", "numpy")


def last_written(folder: Path) -> float:
    """When a file below the folder was last written, in seconds since the epoch; 0 where there is none."""
    files = [Path(place, name) for place, _, names in os.walk(folder) for name in names]
    return max((file.lstat().st_mtime for file in files if file.exists()), default=0.0)


@dataclass
class Times:
    """Of each stage: its seconds, what it was given, the code and packages that ended it.

    A stage that is given something else is done anew and its time begins anew. A start that was killed could not write
    its end: it counts until the last file that was written below `work`.
    """

    path: Path
    work: Path
    known: dict[str, dict[str, Any]]

    @classmethod
    def of(cls, path: Path, work: Path) -> "Times":
        """Raises RecordError for a file that is damaged."""
        return cls(path, work, state_of(path, (dict,)))

    def is_done(self, part: str, said: Sequence[str]) -> bool:
        known = self.known.get(part, {})
        return bool(known.get("done")) and known.get("given") == list(said) and known.get("form") == FORM

    def begin(self, part: str, said: Sequence[str]) -> None:
        """Writes down that the stage begins."""
        before, kept = self.known.get(part, {}), 0.0
        if before.get("given") == list(said):
            kept = before.get("seconds", 0.0)
            if "began" in before:
                kept += max(0.0, last_written(self.work) - before["began"])
        self._write(part, {"seconds": round(kept, 1), "given": list(said), "done": False, "began": time.time()})

    def end(self, part: str, seconds: float, *, done: bool) -> None:
        """Adds a start's seconds; a stage that is done keeps with what it was made."""
        entry = {key: value for key, value in self.known[part].items() if key != "began"}
        entry |= {"seconds": round(entry["seconds"] + seconds, 1), "done": done}
        if done:
            packages = {name: version for name, version in package_versions().items() if name in PACKAGES}
            entry |= {"form": FORM, "code": code_state(), "packages": packages}
        self._write(part, entry)

    def _write(self, part: str, entry: dict[str, Any]) -> None:
        self.known[part] = entry
        write_json(self.path, self.known)
