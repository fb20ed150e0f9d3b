"""The loss of every scored token, kept on disk: what each definition of perplexity is a reduction of.

`losses.f32` holds little-endian float32 numbers, pass after pass as they were made; `pieces.jsonl` says for each pass
where its numbers begin, at which tokens its windows begin, and which targets each scores. Further ranks have such files
of their own, and their passes say in which one they are.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ropewalk.errors import RecordError
from ropewalk.evals.pieces import Pieces, of_rank
from ropewalk.evals.windows import WindowPass

FILE = "losses.f32"
BYTES = 4


class LossTable:
    """Losses of window passes by name, appended; a pass counts once its line in `pieces` is whole."""

    def __init__(self, folder: Path, pieces: Pieces):
        self._path = folder / of_rank(FILE, pieces.ranks.data)
        self._pieces = pieces
        own = [entry for _, entry in pieces.items() if _is_pass(entry) and _file(entry) == self._path.name]
        self._end = max((entry["at"] + _numbers(entry) for entry in own), default=0)
        self._path.touch()
        with self._path.open("r+b") as file:
            if file.seek(0, 2) < self._end * BYTES:
                raise RecordError(
                    f"{self._path} is shorter than {pieces.path.name} says.\n"
                    "  It was cut, or belongs to another run.\n"
                    "  Begin again in a new --out."
                )
            if pieces.writes:
                file.truncate(self._end * BYTES)  # numbers of a pass that was cut off in the middle

    def todo(self, names: Sequence[str]) -> set[str]:
        """Which of these passes this rank is to make."""
        return self._pieces.todo(names)

    def meet(self) -> None:
        """Waits for the passes of all ranks."""
        self._pieces.meet()

    def names(self) -> list[str]:
        """The passes that are there, in the order they were made."""
        return [name for name, entry in self._pieces.items() if _is_pass(entry)]

    def add(self, name: str, window_pass: WindowPass, losses_BR: np.ndarray) -> None:
        """Appends a pass: one row of losses a window, the targets' losses in order."""
        if self._pieces.writes:
            with self._path.open("ab") as file:
                file.write(losses_BR.astype("<f4").tobytes())
        entry = {
            "at": self._end,
            "begins": list(window_pass.begins),
            "targets": [[r.start, r.stop] for r in window_pass.targets],
        }
        if self._path.name != FILE:
            entry["file"] = self._path.name
        self._end += _numbers(entry)
        self._pieces.add(name, entry)

    def windows(self, name: str) -> Iterator[tuple[int, dict[range, np.ndarray]]]:
        """Each window of a pass: its begin, and losses by range of targets, in tokens of the document."""
        entry = self._pieces[name]
        ranges = [range(start, stop) for start, stop in entry["targets"]]
        width = sum(map(len, ranges))
        path = self._path.with_name(_file(entry))
        whole = np.fromfile(path, "<f4", count=_numbers(entry), offset=entry["at"] * BYTES).reshape(-1, width)
        cuts = np.cumsum([0, *map(len, ranges)])
        for begin, row in zip(entry["begins"], whole, strict=True):
            yield (
                begin,
                {
                    range(r.start + begin, r.stop + begin): row[a:b]
                    for r, a, b in zip(ranges, cuts, cuts[1:], strict=False)
                },
            )


def found(losses: dict[range, np.ndarray], targets: range) -> np.ndarray:
    """The losses of `targets`, all of which lie in one of the ranges."""
    for held, values in losses.items():
        if held.start <= targets.start and targets.stop <= held.stop:
            return values[targets.start - held.start : targets.stop - held.start]
    raise KeyError(targets)


def _file(entry: dict) -> str:
    return entry.get("file", FILE)


def _numbers(entry: dict) -> int:
    return len(entry["begins"]) * sum(stop - start for start, stop in entry["targets"])


def _is_pass(entry: object) -> bool:
    return isinstance(entry, dict) and "at" in entry
