"""Run by torchrun on two processes: a save of both, and what is said where they do not share a disk or the texts.

A rank without the shared disk is one that is told another folder of the same run.
"""

import json
import os
import sys
from pathlib import Path

import torch

from ropewalk.errors import RopewalkError
from ropewalk.model.ranks import Layout, Ranks, joined, leave
from tests.ranks.equality import trainer_of


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "saves").iterdir())


def said(folder: Path, run: Path, ranks: Ranks, *, seed: int = 1) -> str:
    """Of a step and a save in this rank's `run`: the error and its kind, or none."""
    try:
        trainer = trainer_of(folder, run, ranks, seed=seed)
        trainer._one_step()
        trainer.save(1)
    except RopewalkError as error:
        return f"{type(error).__name__}: {error}"
    return ""


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    ranks = joined(torch.device("cpu"))
    ranks = ranks.over(Layout(2, 1))
    both, own = folder / "both", folder / f"own-{ranks.number}"
    for run in (both, own):
        (run / "saves").mkdir(parents=True, exist_ok=True)
    ranks.wait()
    found = {"shared": said(folder, both, ranks), "left": left_in(both)}
    found |= {"each its own": said(folder, own, ranks), "left in its own": left_in(own)}
    found["one has a save"] = said(folder, (both, own)[ranks.number], ranks)
    found["other texts"] = said(folder, both, ranks, seed=1 + ranks.number)
    (folder / f"saving-{os.environ['RANK']}.json").write_text(json.dumps(found))
    leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
