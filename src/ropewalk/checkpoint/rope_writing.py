"""RopeSpec -> config.json, in both schemas of transformers, agreeing, nothing dropped.

transformers 5 alone writes only `rope_parameters`, and version 4 then reads theta 10000 and no scaling, without a word.
"""

import dataclasses
from typing import Any

from ropewalk.checkpoint.families import (
    FULL_ATTENTION,
    LAYERED_KEYS,
    LAYERED_THETA,
    LONGROPE_ONLY,
    NEEDS_HEAD_DIM,
    PARTIAL_KEYS,
    THETA_KEYS,
)
from ropewalk.checkpoint.rope_blocks import (
    KEPT_KEYS,
    ORIGINAL,
    WINDOW_KEYS,
    Block,
    derived_head_dim,
    implied_original,
    partial_share,
    rope_blocks,
    text_section,
)
from ropewalk.checkpoint.values import is_number
from ropewalk.rope.frequencies import base_frequencies
from ropewalk.rope.scalings import DynamicNtk, Linear, LongRope, Unscaled
from ropewalk.rope.spec import RopeSpec

# Keys that other runtimes read before max_position_embeddings. One that is there must agree; none is added.
LENGTH_ALIASES = (
    "max_sequence_length",
    "seq_length",
    "max_seq_len",
    "model_max_length",
    "max_seq_length",
    "n_positions",
)
_STATES_ORIGINAL = ("yarn", "llama3", "longrope")


def written(config: dict[str, Any], rope: RopeSpec) -> dict[str, Any]:
    """The config with this rotation of the layers that see the whole window, in both schemas; other keys stay.

    Factors are floats and lengths ints: some runtimes refuse `8` for a factor, others `8192.0` for a length.
    """
    text = text_section(config)
    if text is not config:
        return config | {"text_config": written(text, rope)}
    blocks = rope_blocks(config, "config.json")
    model_type = str(config.get("model_type"))
    rope = sayable(config, rope)
    new = config | _lengths(config, rope)
    no_head_dim = new.get("head_dim") is None
    if no_head_dim and ("head_dim" in new or model_type in NEEDS_HEAD_DIM) and "qk_rope_head_dim" not in new:
        new["head_dim"] = derived_head_dim(config, "config.json")
    parameters = _parameters(rope, blocks[FULL_ATTENTION], is_mla="qk_rope_head_dim" in config)
    if len(blocks) > 1 or model_type in LAYERED_THETA:
        return new | _layered(config, model_type, blocks, rope, parameters)
    return new | _flat(config, model_type, blocks[FULL_ATTENTION], rope, parameters)


def sayable(config: dict[str, Any], rope: RopeSpec) -> RopeSpec:
    """The same rotation in words that this model type accepts: for some, one divisor a pair and nothing else."""
    model_type = str(text_section(config).get("model_type"))
    if model_type not in LONGROPE_ONLY or isinstance(rope.scaling, Unscaled | LongRope):
        return rope
    frequencies = rope.frequencies()
    divisors = tuple((base_frequencies(rope.theta, rope.rotary_dim) / frequencies.inverse_F).tolist())
    scaling = LongRope(divisors, divisors, rope.window.stretch, frequencies.attention_factor)
    return dataclasses.replace(rope, scaling=scaling)


def _lengths(config: dict[str, Any], rope: RopeSpec) -> dict[str, int]:
    """Every key outside the blocks that says a length."""
    new = {key: rope.window.target for key in (*WINDOW_KEYS, *LENGTH_ALIASES) if key in config}
    # of longrope some runtimes read it at the top only
    if ORIGINAL in config or isinstance(rope.scaling, LongRope):
        new[ORIGINAL] = rope.window.original
    return new


def _flat(config: dict[str, Any], model_type: str, block: Block, rope: RopeSpec, parameters: Block) -> dict[str, Any]:
    """Both schemas of a model whose layers all rotate alike."""
    new: dict[str, Any] = {
        "rope_theta": rope.theta,
        "rope_scaling": parameters if len(parameters) > 1 else None,  # more than its rope_type
        "rope_parameters": parameters | {"rope_theta": rope.theta},
    }
    share = partial_share(config, block)
    if share is not None:
        new["rope_parameters"]["partial_rotary_factor"] = share
        new["partial_rotary_factor"] = share  # rope_scaling wins over rope_parameters, and has no place for it
    if model_type in THETA_KEYS:
        new[THETA_KEYS[model_type]] = rope.theta
        new[PARTIAL_KEYS[model_type]] = 1.0 if share is None else share
    return new


def _layered(
    config: dict[str, Any], model_type: str, blocks: dict[str, Block], rope: RopeSpec, parameters: Block
) -> dict[str, Any]:
    """Both schemas of a model with a rotation for each kind of layer; the older one for types that have had it."""
    nested = dict(blocks)
    nested[FULL_ATTENTION] = parameters | {"rope_theta": rope.theta}
    share = partial_share(config, blocks[FULL_ATTENTION])
    if share is not None:
        nested[FULL_ATTENTION]["partial_rotary_factor"] = share
    new: dict[str, Any] = {"rope_parameters": {k: {"rope_type": "default"} | block for k, block in nested.items()}}
    names, scaled = LAYERED_KEYS.get(model_type, ({}, False))
    for kind, name in names.items():
        if kind in nested:
            new[name] = nested[kind]["rope_theta"]
    if scaled:
        new["rope_scaling"] = parameters if len(parameters) > 1 else None
    return new


def _parameters(rope: RopeSpec, before: Block, *, is_mla: bool) -> Block:
    """A rope block without theta."""
    parameters: Block = {"rope_type": rope.scaling.rope_type}
    for key, value in dataclasses.asdict(rope.scaling).items():
        if value is not None:
            parameters[key] = [float(v) for v in value] if isinstance(value, tuple | list) else _as_float(value)
    if is_mla and "attention_factor" in parameters:
        # multi-head latent attention scales its softmax by mscale_all_dim as well: attention_factor alone is exact
        parameters = {key: value for key, value in parameters.items() if not key.startswith("mscale")}
    if rope.scaling.rope_type in _STATES_ORIGINAL or _original_is_needed(rope, before):
        parameters[ORIGINAL] = rope.window.original
    return parameters | {key: before[key] for key in KEPT_KEYS if key in before}


def _original_is_needed(rope: RopeSpec, before: Block) -> bool:
    """Whether a block that need not state the original window has to: what is unsaid is taken from the factor."""
    if isinstance(rope.scaling, Linear) and implied_original(rope.window.target, rope.scaling) != rope.window.original:
        return True  # `none` over a scaling declares more than the factor stretches
    if (
        ORIGINAL in before
        and rope.window.original != rope.window.target
        and isinstance(rope.scaling, Unscaled | DynamicNtk)
    ):
        return True  # it was said there and only there; without it the declared window would count as the original one
    # Ministral 3 sharpens attention beyond the original window, whatever the rotation
    return "llama_4_scaling_beta" in before


def _as_float(value: Any) -> Any:
    return float(value) if is_number(value) else value
