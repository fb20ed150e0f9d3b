"""What each layer keeps for its backward pass: as much as memory bears, since what is not kept is computed twice."""

from collections.abc import Sequence

from ropewalk.model.lean import ATTENTION, EVERYTHING, HOST, INPUT
from ropewalk.planning.memory import Load, kept_bytes_a_token, loss_bytes, working_bytes
from ropewalk.planning.shapes import Shape

SPARE = 0.1  # of the memory that is free: allocators leave gaps


def chosen_keeps(
    shape: Shape, tokens: int, room: int, dtype: str, adapter: str = "full", *, on_gpu: bool = False
) -> tuple[list[str], bool]:
    """One of EVERYTHING, ATTENTION, INPUT, HOST for each layer, first layer first, and whether `room` bytes suffice.

    `tokens` go through the model at once. As many of the last layers as fit keep everything, for what they keep is the
    first to be given back. Where not even attention's outputs fit, they go to the host's memory from a GPU, and
    elsewhere attention runs twice as well, in as many of the first layers as must be.
    """
    full, thin = (tokens * kept_bytes_a_token(shape, policy, dtype, adapter) for policy in ("none", "lean"))
    load = Load(tokens=tokens, passes=1, on_gpu=on_gpu)
    policies = ("none", "lean")
    working = max(
        *(working_bytes(shape, load, policy, dtype, adapter) for policy in policies),
        loss_bytes(shape, load, dtype, adapter),
    )
    left = room - working - shape.layers * thin
    if left >= 0:
        whole = min(shape.layers, int(left // max(1, full - thin)))
        return [ATTENTION] * (shape.layers - whole) + [EVERYTHING] * whole, True
    saved = thin if on_gpu else thin - tokens * kept_bytes_a_token(shape, "lean-thin", dtype, adapter)
    lesser = min(shape.layers, -(-int(-left) // max(1, saved)))
    keeps = [HOST if on_gpu else INPUT] * lesser + [ATTENTION] * (shape.layers - lesser)
    return keeps, left + lesser * saved >= 0


def checkpointed(keeps: Sequence[str]) -> bool:
    """Whether the stock engine, which knows all or nothing, computes its layers twice."""
    return any(keep != EVERYTHING for keep in keeps)
