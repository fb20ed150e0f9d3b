"""Results so far, one line a piece of work: what lets a killed evaluation go on where it stopped, and ranks share the work."""

import contextlib
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ropewalk.errors import FailedElsewhere, RankError
from ropewalk.model.ranks import ALONE, Ranks


class Pieces:
    """Append-only files of named results: `path`, and one beside it for each further rank. A line that was cut off is done
    again.

    Each rank does its part of the pieces and appends to a file of its own; after `meet` all know all. Who wrote a piece
    does not matter: any number of ranks goes on. Ranks that share each text do the same pieces, and the first of them
    writes.

    Files are made before any rank looks for another's, and then opened by name: a machine that looks for a name too early,
    or lists a folder, on a network file system may not see for a minute what another machine has made there.
    """

    def __init__(self, path: Path, ranks: Ranks = ALONE):
        self.ranks = ranks
        self.path = path.with_name(of_rank(path.name, ranks.data))
        self._first = path
        self._known: dict[str, Any] = {}
        self._asked: dict[str, None] = {}  # a set that keeps its order
        if ranks.count > 1:
            ranks.first(self._make_files)
        if self.path.exists():
            whole = self._read(self.path)
            if self.writes:
                with self.path.open("r+b") as file:  # what follows a cut line would be glued to it
                    file.truncate(whole)
        earlier = sorted(path.parent.glob(f"{path.stem}-*{path.suffix}"))  # of an earlier start there may be more
        self._read_others(dict.fromkeys([*self._files(), *earlier]))
        self.ranks.wait()  # ranks that share the work of a piece know the same of it

    @property
    def writes(self) -> bool:
        """Whether this rank does: of those that share each text the first."""
        return self.ranks.sequence == 0

    def _read(self, path: Path) -> int:
        """Takes the whole lines of a file; how many bytes they are."""
        whole = 0
        for line in path.read_bytes().splitlines(keepends=True):
            if not line.endswith(b"\n"):
                break
            try:
                entry = json.loads(line)
                self._known[entry["piece"]] = entry["result"]
            except (ValueError, KeyError, TypeError):
                break
            whole += len(line)
        return whole

    def _files(self) -> list[Path]:
        """Of the ranks of this run."""
        return [self._first.with_name(of_rank(self._first.name, rank)) for rank in range(self.ranks.layout.data)]

    def _make_files(self) -> None:
        for path in self._files():
            path.touch()

    def _read_others(self, paths: Iterable[Path]) -> None:
        for path in paths:
            if path != self.path and path.exists():
                self._read(path)

    def todo(self, names: Sequence[str], groups: Sequence[int] | None = None) -> set[str]:
        """Which of these pieces this rank is to do: of those not there yet, its groups (None: each piece is one)."""
        places = range(len(names)) if groups is None else groups
        ranks = self.ranks
        self._asked |= dict.fromkeys(names)
        return {
            name
            for name, place in zip(names, places, strict=True)
            if place % ranks.layout.data == ranks.data and name not in self._known
        }

    def meet(self) -> None:
        """Waits for all ranks to have done theirs, and reads what the others found.

        Raises RankError where a piece that was asked for is in nobody's file; on ranks that miss none, FailedElsewhere.
        """
        if self.ranks.count == 1:
            return
        self.ranks.wait()
        self._read_others(self._files())
        missing = [name for name in self._asked if name not in self._known]
        if self.ranks.most(float(bool(missing))):  # and nothing is added before all have read
            raise self._lost(missing) if missing else FailedElsewhere("another rank misses results, and says which.")

    def _lost(self, missing: Sequence[str]) -> RankError:
        return RankError(
            f"rank {self.ranks.number} does not see {len(missing)} of the results that the other ranks wrote, the first "
            f"of them {missing[0]!r}.\n"
            f"  Each rank appends what it finds to a file of its own beside {self._first}, and reads those of all others.\n"
            "  Give an --out that every machine sees alike, then go on with --resume: what was written is not done again."
        )

    def __contains__(self, name: str) -> bool:
        return name in self._known

    def __getitem__(self, name: str) -> Any:
        return self._known[name]

    def items(self) -> Iterable[tuple[str, Any]]:
        return self._known.items()

    def add(self, name: str, result: Any) -> None:
        line = json.dumps({"piece": name, "result": result}) + "\n"
        if self.writes:
            self._append(line)
        self._known[name] = json.loads(line)["result"]

    def _append(self, line: str) -> None:
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


def _write_all(handle: int, data: bytes) -> None:
    """A disk that is nearly full takes a part and says so in the count alone."""
    left = memoryview(data)
    while left:
        left = left[os.write(handle, left) :]


def of_rank(name: str, rank: int) -> str:
    """A file's name with the rank in it, but for the first."""
    path = Path(name)
    return name if rank == 0 else f"{path.stem}-{rank}{path.suffix}"
