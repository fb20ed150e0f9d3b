"""Run folders -> records, the runs of a pipeline included: all that the report reads from disk.

Nothing is interpreted here; `arms.py` says who was measured, `compare.py` sets them side by side.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ropewalk.errors import RecordError
from ropewalk.reading import read_bounded, shown
from ropewalk.record import Run, read_run

LOG = "log.jsonl"
MAX_LOG = 1024**3  # bytes: about four million steps
LARGEST = 1e100  # axes take logarithms and margins of what they show, and must stay finite


@dataclass(frozen=True)
class Source:
    """One record, and the tuning log beside it. `name` is the folder's own: a page travels, and paths should not."""

    name: str
    run: Run
    log: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Sources:
    """Every record to report on, in the order given, and what had to be left out."""

    items: tuple[Source, ...]
    notes: tuple[str, ...]


def sources(folders: Sequence[Path]) -> Sources:
    """The records in `folders`, each once, and those of the children of `run` records.

    Raises RecordError when a folder given holds no record. A child that is missing or broken becomes a note: a
    pipeline that failed half way should still be reported on.
    """
    items: list[Source] = []
    notes: list[str] = []
    seen: set[Path] = set()

    def visit(path: Path) -> None:
        folder = path.parent if path.is_file() else path
        if folder.resolve() in seen:
            return
        run = read_run(path)
        seen.add(folder.resolve())
        log, unread = tuning_log(folder / LOG) if run.command == "tune" else ((), 0)
        if unread:
            notes.append(f"{folder.resolve().name}/{LOG}: {counted(unread, 'line')} could not be read.")
        items.append(Source(folder.resolve().name, run, log))
        for child in listed(mapping(run.resolved).get("children")):
            try:
                visit(_part(folder, child))
            except (RecordError, OSError, ValueError) as error:
                notes.append(f"A part of {folder.resolve().name} is left out: {reason(error, folder)}")

    for path in folders:
        visit(Path(path))
    return Sources(tuple(items), tuple(notes))


def _part(folder: Path, child: Any) -> Path:
    """The folder of a part. Raises RecordError for one outside: a record may come from anyone, and pages are passed on."""
    path = folder / str(child)
    if not isinstance(child, str) or folder.resolve() not in path.resolve().parents:
        raise RecordError(f"{shown(child)} is not a folder in it.")
    return path


def tuning_log(path: Path) -> tuple[tuple[tuple[int, float], ...], int]:
    """(step, loss) of each line of a tuning log, and how many lines had neither; none when there is no file."""
    try:
        lines = read_bounded(path, MAX_LOG).decode("utf-8", errors="replace").splitlines()
    except (OSError, ValueError):
        return (), 0
    points: list[tuple[int, float]] = []
    unread = 0
    for line in filter(str.strip, lines):
        try:
            entry = json.loads(line)
        except (json.JSONDecodeError, RecursionError):
            unread += 1  # the last line of a run that was stopped is often half a line
            continue
        if not isinstance(entry, dict) or "loss" not in entry:
            continue  # other events share the file
        step, loss = number(entry.get("step")), number(entry["loss"])
        if step is None or loss is None:
            unread += 1
        else:
            points.append((int(step), loss))
    return tuple(points), unread


def number(value: Any) -> float | None:
    """`value` when it is a number that can be drawn, else None: a record may come from anywhere."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) <= LARGEST else None  # also drops infinities and NaN


def whole(value: Any) -> int | None:
    """`value` as a positive whole number of tokens or steps, else None."""
    found = number(value)
    return int(found) if found is not None and found >= 1 else None


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def counted(count: int, noun: str) -> str:
    """`1 line`, `2 lines`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def reason(error: Exception, folder: Path) -> str:
    """The first line of an error with the folder's own place on disk taken out."""
    return str(error).splitlines()[0].replace(f"{folder}/", "")
