"""Run by torchrun on two processes: each writes one of two results and reads the other's; then one of them is lost."""

import json
import sys
from pathlib import Path
from unittest.mock import patch

import torch

from ropewalk.errors import RankError
from ropewalk.evals.pieces import Pieces
from ropewalk.model.ranks import Ranks, joined, leave

NAMES = ["a", "b"]


def added(path: Path, ranks: Ranks) -> Pieces:
    pieces = Pieces(path, ranks)
    for name in pieces.todo(NAMES):
        pieces.add(name, ranks.number)
    return pieces


def main(folder: Path) -> None:
    ranks = joined(torch.device("cpu"))
    Pieces(folder / "begun.jsonl", ranks)
    begun = sorted(path.name for path in folder.glob("begun*"))
    with patch.object(Path, "glob", lambda self, pattern: iter(())):  # a folder whose listing is a minute old
        met = added(folder / "met.jsonl", ranks)
        met.meet()
    lost = added(folder / "lost.jsonl", ranks)
    if ranks.number == 1:
        lost.path.unlink()
    said = None
    try:
        lost.meet()
    except RankError as error:
        said = [type(error).__name__, str(error)]
    again = Pieces(folder / "lost.jsonl", ranks)
    found = {"begun": begun, "met": dict(met.items()), "said": said, "again": sorted(again.todo(NAMES))}
    (folder / f"found-{ranks.number}.json").write_text(json.dumps(found))
    leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
