"""How to get from a window to a longer one: pure functions from a spec and a target to a spec.

A method is a decision; its result is said in the vocabulary of `scalings`, in the form that most runtimes read exactly.
Each takes its own options only, as keyword arguments. A window that is already scaled is scaled further only where the
result is what the method makes of the native window at the whole stretch; else it is refused.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

from ropewalk.errors import RopeError
from ropewalk.names import unknown
from ropewalk.rope.frequencies import base_frequencies, turns
from ropewalk.rope.scalings import (
    DynamicNtk,
    Linear,
    Llama3,
    LongRope,
    Scaling,
    Unscaled,
    Yarn,
    blend,
    turns_kept,
    yarn_attention_factor,
)
from ropewalk.rope.spec import RopeSpec, Window

Method = Callable[..., RopeSpec]
Ramp = Literal["pairs", "turns"]


def direct(rope: RopeSpec, target: int) -> RopeSpec:
    """No rescaling: only the declared window grows. The paper's baseline, direct fine-tuning (arXiv 2306.15595, 3.1).

    Laid over a scaling, it leaves it as it is.
    """
    _above(rope, target)
    if isinstance(rope.scaling, DynamicNtk | LongRope):  # their frequencies follow the declared window
        raise _already_scaled(rope, "none")
    return replace(rope, window=Window(rope.window.original, target))


def interpolate(rope: RopeSpec, target: int) -> RopeSpec:
    """Position Interpolation (arXiv 2306.15595, eq. 4): positions in [0, target) are squeezed into [0, original).

    >>> rope = RopeSpec(theta=10000.0, rotary_dim=128, window=Window(2048, 2048))
    >>> interpolate(rope, 8192).scaling
    Linear(factor=4.0)
    """
    return _rescaled(rope, target, "pi", Linear)


def raise_theta(rope: RopeSpec, target: int) -> RopeSpec:
    """NTK-aware: theta' = theta s^(d / (d - 2)), so the fastest pair is kept and the slowest slowed by exactly s.

    d is the rotary dimension. The result is unscaled, with another theta: every runtime reads it. From bloc97's post of
    June 2023; YaRN's paper gives it as definition 1 (arXiv 2309.00071).
    """
    stretch = _unscaled(rope, target, "ntk").stretch
    if rope.rotary_dim < 4:
        raise RopeError(
            f"method ntk needs at least two rotary pairs; this model has {rope.rotary_dim // 2}.\n"
            "  Its exponent is d / (d - 2) with d the rotary dimension.\n"
            "  Use --method pi."
        )
    theta = rope.theta * stretch ** (rope.rotary_dim / (rope.rotary_dim - 2))
    return replace(rope, window=Window(rope.window.original, target), theta=theta)


def adjust_base(rope: RopeSpec, target: int, *, theta: float) -> RopeSpec:
    """ABF, adjusted base frequency (arXiv 2309.16039): a theta of one's own, such as 500000. Every runtime reads it."""
    window = _unscaled(rope, target, "abf")
    if not rope.theta < theta:
        raise RopeError(
            f"theta {theta:g} is not above this model's {rope.theta:g}.\n"
            "  A longer window needs slower pairs, and a lower theta makes them faster.\n"
            "  Give a higher one, such as --option theta=500000."
        )
    return replace(rope, window=window, theta=theta)


def by_parts(
    rope: RopeSpec, target: int, *, beta_fast: float = 32.0, beta_slow: float = 1.0, ramp: Ramp = "pairs"
) -> RopeSpec:
    """NTK-by-parts (arXiv 2309.00071, definition 2): fast pairs kept, slow ones interpolated, logits not tempered.

    `ramp="pairs"` runs over pair indices with rounded ends, as YaRN's code and transformers do, and is written as yarn
    with an attention factor of 1. `ramp="turns"` is the paper's equation 18; llama3 says exactly that.
    """
    _ramp(ramp, beta_fast, beta_slow)
    if ramp == "turns":
        return _rescaled(rope, target, "by-parts", lambda s: Llama3(s, beta_slow, beta_fast))
    return _rescaled(
        rope,
        target,
        "by-parts",
        # the pair of equal mscales says 1 to the runtimes that read it and not attention_factor
        lambda s: Yarn(s, beta_fast, beta_slow, attention_factor=1.0, mscale=1.0, mscale_all_dim=1.0),
    )


def yarn(
    rope: RopeSpec,
    target: int,
    *,
    beta_fast: float = 32.0,
    beta_slow: float = 1.0,
    truncate: bool = True,
    attention_factor: float | None = None,
    mscale: float | None = None,
    mscale_all_dim: float | None = None,
    ramp: Ramp = "pairs",
) -> RopeSpec:
    """YaRN (arXiv 2309.00071): NTK-by-parts, and logits tempered by the square of 0.1 ln s + 1.

    The options are transformers' own. `ramp="turns"` is the paper's equation 18, which `rope_type: yarn` cannot say: it
    is written as longrope with one divisor a pair and the attention factor.
    """
    _ramp(ramp, beta_fast, beta_slow)
    if attention_factor is not None and (mscale is not None or mscale_all_dim is not None):
        raise RopeError("attention_factor leaves mscale and mscale_all_dim without effect.\n  Give one or the other.")
    if (mscale is None) != (mscale_all_dim is None):
        raise RopeError("mscale and mscale_all_dim have an effect only together.\n  Give both, or attention_factor.")
    if ramp == "turns":
        if not truncate:
            raise RopeError("truncate has no effect with ramp=turns, which rounds nothing.\n  Leave it out.")
        return _yarn_over_turns(rope, target, beta_fast, beta_slow, attention_factor)
    if attention_factor is not None and attention_factor > 0:

        def tempered(s: float) -> Scaling:
            pair = {} if s == 1 else {"mscale": _equal_mscale(attention_factor, s), "mscale_all_dim": 1.0}
            return Yarn(s, beta_fast, beta_slow, truncate, attention_factor, **pair)

        return _rescaled(rope, target, "yarn", tempered)
    return _rescaled(
        rope,
        target,
        "yarn",
        lambda s: Yarn(s, beta_fast, beta_slow, truncate, attention_factor, mscale, mscale_all_dim),
    )


def llama3(rope: RopeSpec, target: int, *, low_freq_factor: float = 1.0, high_freq_factor: float = 4.0) -> RopeSpec:
    """Llama 3.1's scaling: pairs that turn more than `high` times in the window kept, fewer than `low` interpolated.

    Between the two, a straight line over the turns. Defaults are Meta's.
    """
    if not 0 < low_freq_factor < high_freq_factor:
        raise RopeError(
            f"low_freq_factor {low_freq_factor:g} is not between 0 and high_freq_factor {high_freq_factor:g}.\n"
            "  They count turns within the original window; Llama 3.1 has 1 and 4."
        )
    return _rescaled(rope, target, "llama3", lambda s: Llama3(s, low_freq_factor, high_freq_factor))


def longrope(
    rope: RopeSpec, target: int, *, factors: Sequence[float], attention_factor: float | None = None
) -> RopeSpec:
    """One divisor a pair, given (LongRoPE, arXiv 2402.13753). The same set within the original window and beyond it.

    Two sets would mix rotations in the cache of a runtime that switches between them as a text grows.
    `attention_factor` None: LongRoPE's sqrt(1 + ln s / ln L).
    """
    window = _unscaled(rope, target, "longrope")
    if len(factors) != rope.rotary_dim // 2:
        raise RopeError(
            f"factors holds {len(factors)} values for {rope.rotary_dim // 2} rotary pairs.\n"
            "  Expected one divisor for each pair, the fastest first.\n"
            "  Give them as --option factors=1,1.2,... or as a JSON list in a file: --option factors=@FILE."
        )
    divisors = tuple(float(f) for f in factors)
    return replace(rope, window=window, scaling=LongRope(divisors, divisors, window.stretch, attention_factor))


def freeze(rope: RopeSpec, target: int) -> RopeSpec:
    """Dynamic NTK made static: the theta that it would have at `target` tokens, for every length.

    A dynamic scaling turns cached keys and new queries differently as a text grows, and several runtimes ignore it.
    """
    if not isinstance(rope.scaling, DynamicNtk):
        raise RopeError(
            f"freeze makes a dynamic scaling static, and this checkpoint's is {rope.scaling.rope_type}.\n"
            "  Use another --method, such as pi or ntk."
        )
    _above(rope, target)
    theta = rope.scaling.grown_theta(rope.theta, rope.rotary_dim, rope.window.original, target)
    return replace(rope, window=Window(rope.window.original, target), theta=theta, scaling=Unscaled())


METHODS: dict[str, Method] = {
    "none": direct,
    "pi": interpolate,
    "ntk": raise_theta,
    "by-parts": by_parts,
    "yarn": yarn,
    "llama3": llama3,
    "abf": adjust_base,
    "longrope": longrope,
    "freeze": freeze,
}

# For models that do not rotate: their learned table of positions is resampled (checkpoint.position_table)
TABLE_METHOD = "interpolate-table"

METHOD_NAMES = {
    "none": "direct", "pi": "PI", "ntk": "NTK", "by-parts": "NTK-by-parts", "yarn": "YaRN", "llama3": "Llama 3",
    "abf": "ABF", "longrope": "LongRoPE", "freeze": "frozen NTK", TABLE_METHOD: "interpolated table",
}  # fmt: skip


def native(rope: RopeSpec) -> RopeSpec:
    """The rotation before any scaling that config.json declares: what `--from original` starts from."""
    return replace(rope, window=Window(rope.window.original, rope.window.original), scaling=Unscaled())


def require_known(name: str) -> None:
    """Raises RopeError for a name that is no method, with the closest and all there are."""
    if name not in (*METHODS, TABLE_METHOD):
        raise RopeError(unknown("method", name, (*METHODS, TABLE_METHOD)))


def method_named(name: str) -> Method:
    """The method of that name, for a model that rotates. Raises RopeError when it is none."""
    require_known(name)
    if name == TABLE_METHOD:
        raise RopeError(
            f"cannot apply {name}: this model rotates, and has no learned table of positions.\n"
            "  The method resamples the tables of GPT-2 and OPT.\n"
            "  Use --method pi, which is the same idea for rotary positions, or another of them."
        )
    return METHODS[name]


def _rescaled(rope: RopeSpec, target: int, name: str, scaling: Callable[[float], Scaling]) -> RopeSpec:
    """The scaling at the whole stretch: of an unscaled window, or of one that the same scaling has stretched before."""
    _above(rope, target)
    window = Window(rope.window.original, target)
    if isinstance(rope.scaling, Unscaled):
        return replace(rope, window=_unscaled(rope, target, name), scaling=scaling(window.stretch))
    declared = getattr(rope.scaling, "factor", None)
    if declared is None:
        raise _already_scaled(rope, name)
    total = scaling(declared * target / rope.window.target)
    if not isinstance(rope.scaling, type(total)) or scaling(declared) != rope.scaling:
        raise _already_scaled(rope, name)
    return replace(rope, window=window, scaling=total)


def _unscaled(rope: RopeSpec, target: int, name: str) -> Window:
    """The window from the original to the target, of a rotation that nothing has scaled yet."""
    if not isinstance(rope.scaling, Unscaled) or rope.window.target != rope.window.original:
        raise _already_scaled(rope, name)
    _above(rope, target)
    return Window(rope.window.original, target)


def _above(rope: RopeSpec, target: int) -> None:
    if isinstance(target, bool) or not isinstance(target, int) or target <= rope.window.target:
        raise RopeError(
            f"the target of {str(target)[:40]} tokens is not above the window of {rope.window.target} tokens.\n"
            "  The window was read from max_position_embeddings in config.json.\n"
            f"  Give a longer target, such as --to {2 * rope.window.target}."
        )


def _already_scaled(rope: RopeSpec, name: str) -> RopeError:
    declared = getattr(rope.scaling, "factor", None)
    factor = f" (factor {declared:g})" if declared else ""
    way_out = "--method freeze makes it static, or" if isinstance(rope.scaling, DynamicNtk) else "Or"
    return RopeError(
        f"cannot apply {name}: this checkpoint's window is already scaled with {rope.scaling.rope_type}{factor}, "
        f"from {rope.window.original} to {rope.window.target} tokens.\n"
        "  One scaling laid over another is neither of the two, unless both are the same.\n"
        f"  Start from the unscaled base checkpoint. {way_out} replace the scaling: --from original."
    )


def _ramp(ramp: str, beta_fast: float, beta_slow: float) -> None:
    if ramp not in ("pairs", "turns"):
        raise RopeError(unknown("ramp", ramp, ("pairs", "turns")))
    if not 0 < beta_slow < beta_fast:
        raise RopeError(
            f"beta_slow {beta_slow:g} is not between 0 and beta_fast {beta_fast:g}.\n"
            "  They count turns within the original window; YaRN has 1 and 32 for LLaMA."
        )


def _yarn_over_turns(
    rope: RopeSpec, target: int, beta_fast: float, beta_slow: float, attention_factor: float | None
) -> RopeSpec:
    window = _unscaled(rope, target, "yarn")
    inverse_F = base_frequencies(rope.theta, rope.rotary_dim)
    keep_F = turns_kept(turns(inverse_F, window.original), beta_slow, beta_fast)
    divisors = tuple((inverse_F / blend(keep_F, inverse_F, window.stretch)).tolist())
    tempered = yarn_attention_factor(window.stretch) if attention_factor is None else attention_factor
    return replace(rope, window=window, scaling=LongRope(divisors, divisors, window.stretch, tempered))


def _equal_mscale(attention_factor: float, factor: float) -> float:
    """The mscale which, beside an mscale_all_dim of 1, says the same as this attention factor."""
    return (attention_factor * yarn_attention_factor(factor) - 1) / (0.1 * math.log(factor))
