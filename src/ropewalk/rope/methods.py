"""How to get from a window to a longer one: pure functions from a spec and a target to a spec.

A method is a decision; its result is said in the vocabulary of `scalings`. Each takes its own options only.
"""

from collections.abc import Callable
from dataclasses import replace

from ropewalk.errors import RopeError
from ropewalk.names import unknown
from ropewalk.rope.scalings import Linear, Unscaled, Yarn
from ropewalk.rope.spec import RopeSpec, Window

Method = Callable[[RopeSpec, int], RopeSpec]


def direct(rope: RopeSpec, target: int) -> RopeSpec:
    """No rescaling: only the declared window grows. The paper's baseline, direct fine-tuning (arXiv 2306.15595, 3.1)."""
    return replace(_ready(rope, target, "none"), window=Window(rope.window.original, target))


def interpolate(rope: RopeSpec, target: int) -> RopeSpec:
    """Position Interpolation (arXiv 2306.15595, eq. 4): positions in [0, target) are squeezed into [0, original).

    >>> rope = RopeSpec(theta=10000.0, rotary_dim=128, window=Window(2048, 2048))
    >>> interpolate(rope, 8192).scaling
    Linear(factor=4.0)
    """
    window = Window(_ready(rope, target, "pi").window.original, target)
    return replace(rope, window=window, scaling=Linear(window.stretch))


def raise_theta(rope: RopeSpec, target: int) -> RopeSpec:
    """NTK-aware: theta' = theta s^(d / (d - 2)), so the fastest pair is kept and the slowest slowed by exactly s.

    d is the rotary dimension. The result is unscaled, with another theta: every runtime reads it.
    """
    window = Window(_ready(rope, target, "ntk").window.original, target)
    if rope.rotary_dim < 4:
        raise RopeError(
            f"method ntk needs at least two rotary pairs; this model has {rope.rotary_dim // 2}.\n"
            "  Its exponent is d / (d - 2) with d the rotary dimension.\n"
            "  Use --method pi."
        )
    theta = rope.theta * window.stretch ** (rope.rotary_dim / (rope.rotary_dim - 2))
    return replace(rope, window=window, theta=theta)


def yarn(rope: RopeSpec, target: int) -> RopeSpec:
    """YaRN (arXiv 2309.00071) with its defaults, in the form that transformers computes: see `scalings.Yarn`."""
    window = Window(_ready(rope, target, "yarn").window.original, target)
    return replace(rope, window=window, scaling=Yarn(window.stretch))


METHODS: dict[str, Method] = {"none": direct, "pi": interpolate, "ntk": raise_theta, "yarn": yarn}


def method_named(name: str) -> Method:
    """The method of that name. Raises RopeError that names the closest and lists all."""
    if name in METHODS:
        return METHODS[name]
    raise RopeError(unknown("method", name, METHODS))


def _ready(rope: RopeSpec, target: int, method: str) -> RopeSpec:
    """The spec, if this method may be laid over it."""
    if not isinstance(rope.scaling, Unscaled) or rope.window.target != rope.window.original:
        declared = getattr(rope.scaling, "factor", None)
        factor = f" (factor {declared:g})" if declared else ""
        raise RopeError(
            f"cannot apply {method}: this checkpoint's window is already scaled with {rope.scaling.rope_type}{factor}, "
            f"from {rope.window.original} to {rope.window.target} tokens.\n"
            "  One scaling laid over another is neither of the two.\n"
            "  Start from the unscaled base checkpoint."
        )
    if target <= rope.window.original:
        raise RopeError(
            f"the target of {target} tokens is not above the window of {rope.window.original} tokens.\n"
            "  The window was read from max_position_embeddings in config.json.\n"
            f"  Give a longer target, such as --to {2 * rope.window.original}."
        )
    return rope
