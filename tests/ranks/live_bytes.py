"""Run by torchrun on two processes: what tensors of a rank hold in a step beside its state, and what `plan` says of it."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ropewalk.checkpoint.folder import open_checkpoint
from ropewalk.model import lean
from ropewalk.model.adapters import attached, chosen_adapter
from ropewalk.model.ranked import divided, load_hollow
from ropewalk.model.ranks import Layout, Ranks, joined, leave
from ropewalk.planning import memory
from ropewalk.planning.memory import Memory, memory_of
from ropewalk.planning.shapes import shape_of
from ropewalk.rope.spec import Window
from ropewalk.train.loop import Trainer
from ropewalk.train.recipe import Recipe
from ropewalk.train.recompute import load_of
from ropewalk.train.rows import TokenRows
from tests.live import Live

LENGTH = 32
RECIPE = Recipe(name="paper", steps=3, length=LENGTH, batch_tokens=0, learning_rate=1e-4, window=Window(32, 64))
KEEPS = {"none": "everything", "lean": "attention", "lean-thin": "input"}
CASES = [  # ranks for each sequence, adapter, dtype, policy; None: what the trainer chooses where half of the layers may
    (1, "full", "bfloat16", "lean"),
    (1, "full", "bfloat16", "lean-thin"),
    (1, "full", "bfloat16", "none"),
    (2, "full", "bfloat16", "none"),
    (1, "full", "float32", "lean"),
    (1, "lora+", "bfloat16", "lean"),
    (1, "lora", "float32", "none"),
    (1, "full", "bfloat16", None),
    (2, "full", "bfloat16", None),
    (1, "lora+", "bfloat16", None),
]


def measured(folder: Path, ranks: Ranks, adapter: str, dtype: str, policy: str | None) -> dict[str, Any]:
    loaded = load_hollow(open_checkpoint(folder), dtype="float32", device="cpu")
    shape = shape_of(loaded.model.config.to_dict())
    attached(loaded.model, chosen_adapter(adapter), seed=0)
    weights = divided(loaded, ranks)
    rows = TokenRows(np.random.default_rng(0).integers(2, 300, 4 * LENGTH).astype(np.int32), LENGTH, seed=1)
    recipe = replace(RECIPE, batch_tokens=LENGTH * ranks.layout.data)
    load = load_of(recipe, ranks.layout, LENGTH, on_gpu=False)
    thin, full = (_beside_state(memory_of(shape, load, one, dtype, adapter)) for one in ("lean", "none"))
    trainer = Trainer(
        loaded.model, recipe, rows, folder / "none", getattr(torch, dtype), adapter=adapter, memory=(thin + full) // 2,
        keeps=[KEEPS[policy]] * shape.layers if policy else None, ranks=ranks, weights=weights,
    )  # fmt: skip
    trainer._accumulate()  # makes gradients, which stay
    state = [p.detach() for p in loaded.model.parameters()] + [p.grad for p in trainer.parameters if p.grad is not None]
    with Live(state) as live:
        trainer._accumulate()
    planned = _beside_state(memory_of(shape, load, policy, dtype, adapter)) if policy else (thin + full) // 2
    return {"held": live.most, "planned": planned, "keeps": trainer.keeps}


def _beside_state(held: Memory) -> int:
    return held.total - held.weights - held.gradients - held.optimizer


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    lean.TILE = memory.TILE = 16  # several of them, as in long texts: their gradients are added up
    ranks = joined(torch.device("cpu"))
    found = {}
    for sequence, *case in CASES:
        name = ", ".join(map(str, [f"{2 // sequence} x {sequence}", *case]))
        found[name] = measured(folder / "model", ranks.over(Layout(2 // sequence, sequence)), *case)
    (folder / f"held-{ranks.number}.json").write_text(json.dumps(found))
    leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
