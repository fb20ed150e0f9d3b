"""How the ranks of a run are laid out: as it was asked for, or as the plan says."""

import torch

from ropewalk.checkpoint.folder import Checkpoint
from ropewalk.errors import CheckpointError
from ropewalk.launch import local_count
from ropewalk.model.budget import free_bytes
from ropewalk.model.ranks import Layout, Ranks
from ropewalk.model.shareable import can_share
from ropewalk.planning.job import LEAST_MEMORY, MOST_MEMORY, Job, laid_out
from ropewalk.planning.shapes import Shape, shape_of
from ropewalk.planning.work import GPU_TYPES, device
from ropewalk.train.recipe import Recipe


def chosen_layout(
    sequence: int | None,
    ranks: Ranks,
    checkpoint: Checkpoint,
    recipe: Recipe,
    adapter: str,
    compute: torch.dtype,
    on: torch.device,
) -> Layout:
    """`sequence` ranks for each sequence; None: as few as the memory that is free asks for, by the plan.

    Where ranks cannot share a sequence that is 1, and ranks beyond the sequences of a step wait for the others.
    """
    if sequence is None and ranks.count > 1 and can_share(checkpoint):
        sequence = _planned(_shape(checkpoint), ranks.count, recipe, adapter, compute, free_for_each(ranks, on), on)
    sequence = 1 if sequence is None else sequence
    return Layout(ranks.count // max(1, sequence), sequence)


def free_for_each(ranks: Ranks, on: torch.device) -> int:
    """The memory that each rank finds free on its device; on the CPU those of a machine share one."""
    free = free_bytes(on)
    return int(ranks.least(free if on.type == "cuda" else free // local_count()))


def _planned(
    shape: Shape | None, count: int, recipe: Recipe, adapter: str, compute: torch.dtype, free: int, on: torch.device
) -> int:
    if shape is None:
        return 1
    job = Job(
        shape=shape, length=recipe.length, sequences=recipe.sequences, steps=recipe.steps, adapter=adapter,
        dtype=str(compute).removeprefix("torch."), gpus=count, memory=min(MOST_MEMORY, max(LEAST_MEMORY, free)),
        on=next(iter(GPU_TYPES.values())) if on.type == "cuda" else device("cpu"),
    )  # fmt: skip
    return laid_out(job).sequence


def _shape(checkpoint: Checkpoint) -> Shape | None:
    try:
        return shape_of(checkpoint.config, checkpoint.parameters)
    except CheckpointError:
        return None
