"""Run as one process or by torchrun: what each rank holds, in bytes of anonymous memory, written as JSON by each.

open FOLDER OUT         opens the checkpoint over all ranks, writes it again into OUT, and opens it in another dtype
step FOLDER OUT S L     one optimizer step on a row of L tokens, S ranks for each sequence
"""

import gc
import json
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ropewalk.checkpoint.folder import open_checkpoint
from ropewalk.model.load import load_model
from ropewalk.model.ranked import divided, load_hollow
from ropewalk.model.ranks import Layout, Ranks, joined, leave
from ropewalk.model.sharding import local
from ropewalk.model.whole_files import write_whole
from ropewalk.rope.spec import Window
from ropewalk.train.loop import Trainer
from ropewalk.train.recipe import Recipe
from ropewalk.train.rows import TokenRows

CPU = torch.device("cpu")
RECIPE = Recipe(name="paper", steps=2, length=0, batch_tokens=0, learning_rate=1e-4, window=Window(64, 64))


def resident() -> int:
    """Bytes of the process's own memory that are there now."""
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("RssAnon"))


def mapped() -> int:
    """Bytes of mapped safetensors files that are there now."""
    total, ours = 0, False
    with open("/proc/self/smaps", encoding="utf-8") as maps:
        for line in maps:
            if "-" in line.split()[0]:  # the line of a mapping, by its addresses
                ours = line.rstrip().endswith(".safetensors")
            elif ours and line.startswith("Rss:"):
                total += int(line.split()[1]) * 1024
    return total


@contextmanager
def peak() -> Iterator[list[int]]:
    """The most that is held inside the block, looked at every millisecond."""
    most, done = [resident()], threading.Event()

    def look() -> None:
        while not done.wait(0.001):
            most[0] = max(most[0], resident())

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield most
    finally:
        done.set()
        thread.join()


def opened(folder: Path, out: Path, ranks: Ranks) -> dict[str, int]:
    libraries = resident()
    with peak() as most:
        loaded = load_hollow(open_checkpoint(folder), dtype="float32", device="cpu")
        divided(loaded, ranks)
    with peak() as saving:
        write_whole(loaded.model, out, torch.float32, ranks, file_size="200MB")
    own = sum(local(parameter).nbytes for parameter in loaded.model.parameters())
    found = {"libraries": libraries, "opened": most[0], "saving": saving[0], "own": own, "mapped": mapped()}
    del loaded
    gc.collect()
    with peak() as most:
        loaded = load_hollow(open_checkpoint(folder), dtype="bfloat16", device="cpu")
        divided(loaded, ranks)
    return found | {"cast": most[0]}


def stepped(folder: Path, ranks: Ranks, length: int) -> dict[str, int]:
    before = resident()
    load = load_model if ranks.line is None else load_hollow
    loaded = load(open_checkpoint(folder), dtype="float32", device="cpu")
    weights = None if ranks.line is None else divided(loaded, ranks)
    rows = TokenRows(np.random.default_rng(0).integers(2, 300, 4 * length).astype(np.int32), length, seed=1)
    layers = loaded.model.config.num_hidden_layers
    trainer = Trainer(
        loaded.model, replace(RECIPE, length=length, batch_tokens=length * ranks.layout.data), rows, folder / "none",
        torch.float32, keeps=["everything"] * layers, ranks=ranks, weights=weights,
    )  # fmt: skip
    trainer._one_step()  # makes gradients, which stay, and moments
    state = resident()
    with peak() as most:
        trainer._one_step()
    return {"state": state - before, "step": most[0] - state}


def main(what: str, folder: Path, out: Path, *more: str) -> None:
    torch.set_num_threads(1)
    ranks = joined(CPU)
    if what == "open":
        found = opened(folder, out, ranks)
    else:
        sequence = int(more[0])
        found = stepped(folder, ranks.over(Layout(ranks.count // sequence, sequence)), int(more[1]))
    (out / f"{what}-{os.environ.get('RANK', 'alone')}.json").write_text(json.dumps(found))
    leave()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), *sys.argv[4:])
