"""What each layer keeps for its backward pass: as much as memory bears, since what is not kept is computed twice."""

from collections.abc import Sequence

from ropewalk.model.lean import ATTENTION, EVERYTHING, HOST, INPUT
from ropewalk.model.ranks import Layout
from ropewalk.planning.memory import Load, memory_of
from ropewalk.planning.shapes import Shape
from ropewalk.train.recipe import Recipe

SPARE = 0.1  # of the memory that is free: allocators leave gaps


def load_of(recipe: Recipe, layout: Layout, micro_tokens: int, *, on_gpu: bool) -> Load:
    """What one rank is given at once: as many of its rows as `micro_tokens` hold, or one, and of each its part."""
    rows = min(-(-recipe.sequences // layout.data), max(1, micro_tokens // recipe.length))
    tokens = rows * -(-recipe.length // layout.sequence)
    return Load(tokens=tokens, gpus=layout.ranks, sequence=layout.sequence, on_gpu=on_gpu)


def chosen_keeps(shape: Shape, load: Load, room: int, dtype: str, adapter: str = "full") -> tuple[list[str], bool]:
    """One of EVERYTHING, ATTENTION, INPUT, HOST for each layer, first layer first, and whether `room` bytes suffice.

    The room is for all that a pass takes beside weights, gradients and moments, copies and gathered weights included. As
    many of the last layers as fit keep everything, for what they keep is the first to be given back. Where not even
    attention's outputs fit, they go to the host's memory from a GPU, and elsewhere attention runs twice as well, in as
    many of the first layers as must be.
    """
    lesser = "offload" if load.on_gpu else "lean-thin"
    full, thin, least = (memory_of(shape, load, policy, dtype, adapter) for policy in ("none", "lean", lesser))
    working = max(full.working, thin.working, thin.loss)
    left = room - working - thin.kept - thin.copies
    if left >= 0:
        more = full.kept + full.copies - thin.kept - thin.copies  # if all layers keep everything
        whole = min(shape.layers, left * shape.layers // max(1, more))
        return [ATTENTION] * (shape.layers - whole) + [EVERYTHING] * whole, True
    left -= max(0, least.working - working)
    saved = (thin.kept - least.kept) // shape.layers
    count = min(shape.layers, -(left // max(1, saved)))
    keeps = [HOST if load.on_gpu else INPUT] * count + [ATTENTION] * (shape.layers - count)
    return keeps, left + count * saved >= 0


def checkpointed(keeps: Sequence[str]) -> bool:
    """Whether the stock engine, which knows all or nothing, computes its layers twice."""
    return any(keep != EVERYTHING for keep in keeps)
