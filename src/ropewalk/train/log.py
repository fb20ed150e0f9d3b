"""log.jsonl: a line for each step of a run."""

import contextlib
import json
from pathlib import Path
from typing import Any

from ropewalk.atomic import write_text

LOG = "log.jsonl"


def cut_log(path: Path, steps: int, *, write: bool = True) -> tuple[list[dict[str, Any]], int]:
    """The log's entries up to `steps`, and the last step it had; later entries, and a torn line, leave the file.

    Without `write` the file stays as it is.
    """
    if not path.exists():
        return [], 0
    entries: list[dict[str, Any]] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(ValueError):
            entries.append(json.loads(line))
    kept = [entry for entry in entries if entry["step"] <= steps]
    if write:
        write_text(path, "".join(json.dumps(entry) + "\n" for entry in kept))
    return kept, max((entry["step"] for entry in entries), default=0)
