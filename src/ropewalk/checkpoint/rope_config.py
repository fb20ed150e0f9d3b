"""config.json <-> RopeSpec, both ways, in both schemas of transformers, nothing dropped.

Reading understands `rope_parameters` (transformers 5; flat, or one block a kind of layer) and `rope_theta` with
`rope_scaling` (transformers 4, and the runtimes that follow it), under the older names of some families too. Writing
puts down both, agreeing: transformers 5 alone writes only the first, and version 4 then reads theta 10000 and no
scaling, without a word.
"""

import dataclasses
from typing import Any

import numpy as np

from ropewalk.checkpoint.families import (
    DEFAULT_PARTIAL,
    DEFAULT_THETA,
    FULL_ATTENTION,
    LAYERED_KEYS,
    LAYERED_THETA,
    LONGROPE_ONLY,
    NEEDS_HEAD_DIM,
    PARTIAL_KEYS,
    SCALED_UNSAID,
    THETA_KEYS,
    assert_within_reach,
)
from ropewalk.errors import CheckpointError
from ropewalk.rope.frequencies import base_frequencies
from ropewalk.rope.scalings import SCALINGS, DynamicNtk, LongRope, Scaling, Unscaled
from ropewalk.rope.spec import RopeSpec, Window

# Keys that other runtimes read before max_position_embeddings. One that is there must agree; none is added.
LENGTH_ALIASES = (
    "max_sequence_length",
    "seq_length",
    "max_seq_len",
    "model_max_length",
    "max_seq_length",
    "n_positions",
)
# Words for one thing; the first that is there is read. Dbrx has the second of each, Ling the third for its window.
WINDOW_KEYS = ("max_position_embeddings", "max_seq_len", "model_max_length")
_HEAD_KEYS = ("qk_rope_head_dim", "attention_head_dim", "head_dim", "kv_channels")
_WIDTH_KEYS, _HEADS_KEYS = ("hidden_size", "d_model"), ("num_attention_heads", "n_heads")

# Keys of a rope block that are not fields of a scaling: read elsewhere, or kept as they are.
_READ_KEYS = {"rope_type", "type", "rope_theta", "partial_rotary_factor", "original_max_position_embeddings"}
_KEPT_KEYS = ("mrope_section", "mrope_interleaved", "llama_4_scaling_beta")  # none of them changes a frequency
_STATES_ORIGINAL = ("yarn", "llama3", "longrope")
_OLDER_TYPES = {"mrope": "default", "su": "longrope"}  # Qwen2-VL's word and Phi-3's first one


def read_ropes(config: dict[str, Any], source: str) -> dict[str, RopeSpec]:
    """The rotation of each kind of layer. `source` names the file in messages.

    Raises CheckpointError when the model has no rotary positions, or a block that this version cannot read.
    """
    assert_within_reach(config, source)
    text = text_section(config)
    assert_within_reach(text, source)
    blocks = _blocks(text, source)
    return {kind: _read_rope(text, kind, block, source) for kind, block in blocks.items()}


def text_section(config: dict[str, Any]) -> dict[str, Any]:
    """The part of a config that speaks of the language model: all of it, or `text_config` of a model with other parts."""
    nested = config.get("text_config")
    speaks = any(key in config for key in ("rope_parameters", "rope_theta", "rope_scaling", "hidden_size"))
    return nested if isinstance(nested, dict) and not speaks else config


def written(config: dict[str, Any], rope: RopeSpec) -> dict[str, Any]:
    """The config with this rotation of the layers that see the whole window, in both schemas; other keys stay.

    Factors are floats and lengths ints: some runtimes refuse `8` for a factor, others `8192.0` for a length.
    """
    text = text_section(config)
    if text is not config:
        return config | {"text_config": written(text, rope)}
    blocks = _blocks(config, "config.json")
    model_type = str(config.get("model_type"))
    rope = sayable(config, rope)
    new = dict(config)
    for key in (*WINDOW_KEYS, *LENGTH_ALIASES):
        if key in new:
            new[key] = rope.window.target
    # of longrope some runtimes read it at the top only
    if "original_max_position_embeddings" in new or isinstance(rope.scaling, LongRope):
        new["original_max_position_embeddings"] = rope.window.original
    no_head_dim = new.get("head_dim") is None
    if no_head_dim and ("head_dim" in new or model_type in NEEDS_HEAD_DIM) and "qk_rope_head_dim" not in new:
        new["head_dim"] = _head_dim(config, "config.json")
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


def contradictions(config: dict[str, Any], rope: RopeSpec) -> list[str]:
    """Where a config says one thing twice and differently, in sentences with both values."""
    text = text_section(config)
    found = []
    factor, stretch = getattr(rope.scaling, "factor", None), rope.window.stretch
    if factor and not isinstance(rope.scaling, DynamicNtk) and not np.isclose(factor, stretch, rtol=1e-3):
        found.append(
            f"factor is {factor:g}, and the windows' ratio {rope.window.target} / {rope.window.original} is {stretch:g}."
        )
    found += disagreements(config)
    inner = text.get("attn_config")  # dbrx: where its published configs say theta, and transformers 5 does not look
    if isinstance(inner, dict) and inner.get("rope_theta", rope.theta) != rope.theta:
        found.append(f"rope_theta is {inner['rope_theta']!r} in attn_config, and transformers 5 reads {rope.theta:g}.")
    return found


def disagreements(config: dict[str, Any]) -> list[str]:
    """Where the two schemas say different things, in sentences with both values."""
    text = text_section(config)
    found = []
    block, legacy = text.get("rope_parameters"), text.get("rope_scaling")
    if isinstance(block, dict) and isinstance(block.get(FULL_ATTENTION), dict):
        block = block[FULL_ATTENTION]
    if isinstance(block, dict) and isinstance(legacy, dict):
        for key in sorted(block.keys() & legacy.keys()):
            if block[key] != legacy[key]:
                found.append(f"{key} is {block[key]!r} in rope_parameters and {legacy[key]!r} in rope_scaling.")
    theta = text.get("rope_theta")
    if isinstance(block, dict) and theta is not None and block.get("rope_theta", theta) != theta:
        found.append(f"rope_theta is {block['rope_theta']!r} in rope_parameters and {theta!r} beside it.")
    return found


def _blocks(text: dict[str, Any], source: str) -> dict[str, dict[str, Any]]:
    """The rope block of each kind of layer, whatever the schema, theta included."""
    model_type = str(text.get("model_type"))
    block, legacy = text.get("rope_parameters") or {}, text.get("rope_scaling") or {}
    for key, value in (("rope_parameters", block), ("rope_scaling", legacy)):
        _require(isinstance(value, dict), source, key, value, "an object")
    if model_type in SCALED_UNSAID and not block and not legacy:
        raise CheckpointError(
            f"{source} has no rope block, and transformers gives model_type {model_type!r} a scaled one of its own.\n"
            "  Which scaling the weights were trained with has to be written down.\n"
            "  Add rope_parameters, as the published checkpoints of this type have it."
        )
    kinds = {kind: value for kind, value in block.items() if isinstance(value, dict)}
    if not kinds and model_type not in LAYERED_THETA:
        # transformers 5 lets rope_scaling win over rope_parameters where both are there
        return {FULL_ATTENTION: {"rope_theta": _flat_theta(text, model_type, source), **block, **legacy}}
    names, scaled = LAYERED_KEYS.get(model_type, ({}, False))
    defaults = LAYERED_THETA.get(model_type, {})
    blocks = {}
    for kind in kinds or defaults:
        said = text.get(names[kind]) if kind in names else None
        theta = {"rope_theta": defaults.get(kind) if said is None else said}
        blocks[kind] = theta | kinds.get(kind, {}) | (legacy if scaled and kind == FULL_ATTENTION else {})
    if FULL_ATTENTION not in blocks:
        raise CheckpointError(
            f"{source} gives a rotation for each kind of layer ({', '.join(blocks)}), and none is {FULL_ATTENTION}.\n"
            "  A window is lengthened in the layers that see all of it.\n"
            "  Use a checkpoint that has such layers."
        )
    return blocks


def _flat_theta(text: dict[str, Any], model_type: str, source: str) -> Any:
    """Theta as said outside a block, or as the model type has it; None where a block says it itself."""
    said = text.get("rope_theta", text.get(THETA_KEYS.get(model_type, "rope_theta")))
    if said is None and "rope_theta" not in (text.get("rope_parameters") or {}):
        said = DEFAULT_THETA.get(model_type)
        if said is None:
            raise CheckpointError(
                f"no rotary positions found: {source} (model_type {text.get('model_type')!r}) has neither rope_parameters "
                "nor rope_theta.\n"
                "  A RoPE checkpoint says its theta there, unless its type has a known default.\n"
                "  If the model does rotate, add its rope_theta to config.json."
            )
    return said


def _read_rope(text: dict[str, Any], kind: str, block: dict[str, Any], source: str) -> RopeSpec:
    theta = block.get("rope_theta")
    _require(_is_number(theta), source, "rope_theta", theta, "a number")
    scaling = _read_scaling(block, source)
    window = _read_window(text, block, scaling, source)
    if kind != FULL_ATTENTION and isinstance(scaling, Unscaled):
        window = Window(window.original, window.original)
    return RopeSpec(
        theta=float(theta),  # type: ignore[arg-type]
        rotary_dim=_rotary_dim(text, block, source),
        window=window,
        scaling=scaling,
    )


def _flat(
    config: dict[str, Any], model_type: str, block: dict[str, Any], rope: RopeSpec, parameters: dict[str, Any]
) -> dict[str, Any]:
    """Both schemas of a model whose layers all rotate alike."""
    new: dict[str, Any] = {
        "rope_theta": rope.theta,
        "rope_scaling": parameters if len(parameters) > 1 else None,  # more than its rope_type
        "rope_parameters": parameters | {"rope_theta": rope.theta},
    }
    share = _partial(config, block)
    if share is not None:
        new["rope_parameters"]["partial_rotary_factor"] = share
        new["partial_rotary_factor"] = share  # rope_scaling wins over rope_parameters, and has no place for it
    if model_type in THETA_KEYS:
        new[THETA_KEYS[model_type]] = rope.theta
        new[PARTIAL_KEYS[model_type]] = 1.0 if share is None else share
    return new


def _layered(
    config: dict[str, Any],
    model_type: str,
    blocks: dict[str, dict[str, Any]],
    rope: RopeSpec,
    parameters: dict[str, Any],
) -> dict[str, Any]:
    """Both schemas of a model with a rotation for each kind of layer; the older one for types that have had it."""
    nested = dict(blocks)
    nested[FULL_ATTENTION] = parameters | {"rope_theta": rope.theta}
    share = _partial(config, blocks[FULL_ATTENTION])
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


def _parameters(rope: RopeSpec, before: dict[str, Any], *, is_mla: bool) -> dict[str, Any]:
    """A rope block without theta."""
    parameters: dict[str, Any] = {"rope_type": rope.scaling.rope_type}
    for key, value in dataclasses.asdict(rope.scaling).items():
        if value is not None:
            parameters[key] = [float(v) for v in value] if isinstance(value, tuple | list) else _as_float(value)
    if is_mla and "attention_factor" in parameters:
        # multi-head latent attention scales its softmax by mscale_all_dim as well: attention_factor alone is exact
        parameters = {key: value for key, value in parameters.items() if not key.startswith("mscale")}
    # Ministral 3 sharpens attention beyond the original window, whatever the rotation
    if rope.scaling.rope_type in _STATES_ORIGINAL or "llama_4_scaling_beta" in before:
        parameters["original_max_position_embeddings"] = rope.window.original
    return parameters | {key: before[key] for key in _KEPT_KEYS if key in before}


def _read_scaling(block: dict[str, Any], source: str) -> Scaling:
    rope_type = block.get("rope_type", block.get("type", "default"))
    rope_type = _OLDER_TYPES.get(str(rope_type), str(rope_type))
    kind = SCALINGS.get(rope_type)
    if kind is None:
        raise CheckpointError(
            f"{source} asks for the rotation {rope_type!r}, which is not one that ropewalk knows.\n"
            f"  Known: {', '.join(SCALINGS)}.\n"
            "  Start from a checkpoint with one of these."
        )
    names = {f.name for f in dataclasses.fields(kind)}
    kept = {*_KEPT_KEYS, "max_position_embeddings"}  # Ministral 3 repeats the window in its block
    unknown = block.keys() - names - _READ_KEYS - kept
    if unknown:
        raise CheckpointError(
            f"{source} has keys beside rope_type {rope_type!r} that ropewalk does not know: {', '.join(sorted(unknown))}.\n"
            "  A key passed over could change the rotation, so it stops here.\n"
            "  Remove the keys if they have no effect."
        )
    given = {name: block[name] for name in names if block.get(name) is not None}
    for name, value in given.items():
        if name in ("short_factor", "long_factor"):
            allowed = isinstance(value, list) and all(_is_number(v) and v > 0 for v in value)
            _require(allowed, source, name, value, "a list of numbers above 0, one a rotary pair")
        elif name == "truncate":
            _require(isinstance(value, bool), source, name, value, "true or false")
        else:
            least = 1 if name == "factor" else 0
            # an mscale of 0 counts as unsaid, as in transformers
            allowed = _is_number(value) and (value >= least if least or "mscale" in name else value > 0)
            _require(allowed, source, name, value, f"a number {'of at least' if least else 'above'} {least}")
    lists = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    try:
        return kind(**lists)
    except TypeError:
        missing = sorted(
            f.name for f in dataclasses.fields(kind) if f.default is dataclasses.MISSING and f.name not in given
        )
        raise CheckpointError(
            f"{source} has rope_type {rope_type!r} without {', '.join(missing)}.\n  Add what is missing."
        ) from None


def _read_window(config: dict[str, Any], block: dict[str, Any], scaling: Scaling, source: str) -> Window:
    declared = next((config[key] for key in WINDOW_KEYS if config.get(key) is not None), None)
    if declared is None:
        raise CheckpointError(f"{source} has no max_position_embeddings.\n  Add the window in tokens.")
    _require(
        _is_number(declared) and declared == int(declared) and declared >= 1,
        source,
        "max_position_embeddings",
        declared,
        "a whole number of tokens",
    )
    # at the top level it wins over the block's, as in transformers (Phi-3)
    original = config.get("original_max_position_embeddings", block.get("original_max_position_embeddings"))
    if original is None:
        factor = getattr(scaling, "factor", None)
        stretched = scaling.rope_type in ("linear", "yarn") and factor is not None and factor > 1
        original = round(declared / factor) if stretched and factor else declared
    _require(
        _is_number(original) and original == int(original) and original >= 1,
        source,
        "original_max_position_embeddings",
        original,
        "a whole number of tokens",
    )
    return Window(int(original), int(declared))


def _rotary_dim(config: dict[str, Any], block: dict[str, Any], source: str) -> int:
    """Rotated dimensions of a head: of latent attention, those of its rotary part; else the share of the head."""
    head_dim = next((config[key] for key in _HEAD_KEYS if config.get(key) is not None), None)
    if head_dim is None:
        head_dim = _head_dim(config, source)
    share = _partial(config, block)
    share = 1.0 if share is None or config.get("qk_rope_head_dim") is not None else share
    _require(_is_number(head_dim) and _is_number(share), source, "head_dim", head_dim, "a whole number")
    return int(head_dim * share)


def _head_dim(config: dict[str, Any], source: str) -> int:
    """Width over heads, where a config does not say the dimension of a head."""
    sides = []
    for keys in (_WIDTH_KEYS, _HEADS_KEYS):
        value = next((config[key] for key in keys if config.get(key) is not None), None)
        _require(_is_number(value) and value >= 1, source, keys[0], value, "a whole number")  # type: ignore[operator]
        sides.append(value)
    return int(sides[0] // sides[1])


def _partial(config: dict[str, Any], block: dict[str, Any]) -> Any:
    """The rotated share of a head, from the block, beside it, under an older name, or the type's own; None if unsaid."""
    model_type = str(config.get("model_type"))
    for said in (
        block.get("partial_rotary_factor"),
        config.get("partial_rotary_factor"),
        config.get(PARTIAL_KEYS.get(model_type, "partial_rotary_factor")),
    ):
        if said is not None:
            return said
    return DEFAULT_PARTIAL.get(model_type)


def _is_number(value: Any) -> bool:
    """Whether a value is a number that means something here; larger ones are no length, factor or theta."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= 1e15


def _as_float(value: Any) -> Any:
    return float(value) if _is_number(value) else value


def _require(holds: bool, source: str, key: str, value: Any, expected: str) -> None:
    if not holds:
        raise CheckpointError(
            f"{key} is {value!r} in {source}.\n  Expected {expected}.\n  Correct it, or fetch the checkpoint again."
        )
