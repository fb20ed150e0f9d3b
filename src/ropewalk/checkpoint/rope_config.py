"""config.json <-> RopeSpec, both ways, in both schemas of transformers, nothing dropped.

Reading understands `rope_parameters` (transformers 5) and `rope_theta` with `rope_scaling` (transformers 4, and the
runtimes that follow it). Writing puts down both, agreeing: transformers 5 alone writes only the first, and version 4
then reads theta 10000 and no scaling, without a word.
"""

import dataclasses
from typing import Any

from ropewalk.errors import CheckpointError
from ropewalk.rope.scalings import SCALINGS, LongRope, Scaling, Unscaled
from ropewalk.rope.spec import RopeSpec, Window

# What models without rotary positions have instead; each line completes "it has ...".
OTHER_POSITIONS = {
    "gpt2": "a learned table of absolute positions",
    "gpt_neo": "a learned table of absolute positions",
    "gpt_bigcode": "a learned table of absolute positions",
    "opt": "a learned table of absolute positions",
    "biogpt": "a learned table of absolute positions",
    "bert": "a learned table of absolute positions",
    "roberta": "a learned table of absolute positions",
    "xglm": "sinusoidal absolute positions added to the embeddings",
    "bloom": "ALiBi, a bias on attention that grows with distance",
    "mpt": "ALiBi, a bias on attention that grows with distance",
    "t5": "relative position buckets",
    "mamba": "no positions at all: it is a state space model",
    "mamba2": "no positions at all: it is a state space model",
    "rwkv": "no positions at all: it is a recurrent network",
    "gptj": "rotary positions held in a fixed table that config.json cannot change",
    "codegen": "rotary positions held in a fixed table that config.json cannot change",
}

# Types whose config may leave theta out, because transformers has this default for them.
DEFAULT_THETA: dict[str, float] = dict.fromkeys(
    ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "olmo", "phi", "stablelm"), 1e4
)

# Keys that other runtimes read before max_position_embeddings. One that is there must agree; none is added.
LENGTH_ALIASES = ("max_sequence_length", "seq_length", "max_seq_len", "model_max_length", "max_seq_length")

# Keys of a rope block that are not fields of a scaling.
_SHARED_KEYS = {"rope_type", "type", "rope_theta", "partial_rotary_factor", "original_max_position_embeddings"}
_STATES_ORIGINAL = ("yarn", "llama3", "longrope")

FULL_ATTENTION = "full_attention"


def read_ropes(config: dict[str, Any], source: str) -> dict[str, RopeSpec]:
    """The rotation of each kind of layer. `source` names the file in messages.

    Raises CheckpointError when the model has no rotary positions, or a block that this version cannot read.
    """
    model_type = config.get("model_type")
    if model_type in OTHER_POSITIONS:
        raise CheckpointError(
            f"this is not a model that ropewalk can extend: {source} says model_type {model_type!r}, "
            f"and it has {OTHER_POSITIONS[model_type]}.\n"
            "  Position Interpolation rescales rotary position embeddings set by config.json (RoPE).\n"
            "  Use a RoPE checkpoint, such as one of the Llama, Mistral or Qwen families."
        )
    block = config.get("rope_parameters") or {}
    legacy = config.get("rope_scaling") or {}
    _require(
        isinstance(block, dict) and isinstance(legacy, dict), source, "rope_parameters", block or legacy, "an object"
    )
    if any(isinstance(value, dict) for value in block.values()):
        raise CheckpointError(
            f"{source} gives a rotation for each kind of layer ({', '.join(block)}).\n"
            "  This version reads models whose layers all rotate alike.\n"
            "  Use a Llama-type checkpoint."
        )
    theta = block.get("rope_theta", config.get("rope_theta", DEFAULT_THETA.get(str(model_type))))
    if theta is None:
        raise CheckpointError(
            f"no rotary positions found: {source} (model_type {model_type!r}) has neither rope_parameters nor rope_theta.\n"
            "  A RoPE checkpoint says its theta there, unless its type has a known default.\n"
            "  If the model does rotate, add its rope_theta to config.json."
        )
    _require(_is_number(theta), source, "rope_theta", theta, "a number")
    # transformers 5 lets rope_scaling win over rope_parameters where both are there
    merged = {**block, **legacy}
    scaling = _read_scaling(merged, source)
    window = _read_window(config, merged, scaling, source)
    rope = RopeSpec(theta=float(theta), rotary_dim=_rotary_dim(config, merged, source), window=window, scaling=scaling)
    return {FULL_ATTENTION: rope}


def written(config: dict[str, Any], rope: RopeSpec) -> dict[str, Any]:
    """The config with this rotation in both schemas; other keys keep their values and their order.

    Factors are floats and lengths ints: some runtimes refuse `8` for a factor, others `8192.0` for a length.
    """
    parameters: dict[str, Any] = {"rope_type": rope.scaling.rope_type}
    for key, value in dataclasses.asdict(rope.scaling).items():
        if value is not None:
            parameters[key] = [float(v) for v in value] if isinstance(value, tuple | list) else _as_float(value)
    if rope.scaling.rope_type in _STATES_ORIGINAL:
        parameters["original_max_position_embeddings"] = rope.window.original
    partial = (config.get("rope_parameters") or {}).get("partial_rotary_factor")
    new = dict(config)
    new["max_position_embeddings"] = rope.window.target
    new["rope_theta"] = rope.theta
    new["rope_scaling"] = None if isinstance(rope.scaling, Unscaled) else parameters
    new["rope_parameters"] = parameters | {"rope_theta": rope.theta}
    if partial is not None:
        new["rope_parameters"]["partial_rotary_factor"] = partial
    for alias in LENGTH_ALIASES:
        if alias in new:
            new[alias] = rope.window.target
    if "head_dim" in new and new["head_dim"] is None:  # transformers' yarn divides by it unasked
        new["head_dim"] = new["hidden_size"] // new["num_attention_heads"]
    return new


def _read_scaling(block: dict[str, Any], source: str) -> Scaling:
    rope_type = block.get("rope_type", block.get("type", "default"))
    kind = SCALINGS.get(str(rope_type))
    if kind is None:
        raise CheckpointError(
            f"{source} asks for the rotation {rope_type!r}, which is not one that ropewalk knows.\n"
            f"  Known: {', '.join(SCALINGS)}.\n"
            "  Start from a checkpoint with one of these."
        )
    names = {f.name for f in dataclasses.fields(kind)}
    unknown = block.keys() - names - _SHARED_KEYS
    if unknown:
        raise CheckpointError(
            f"{source} has keys beside rope_type {rope_type!r} that ropewalk does not know: {', '.join(sorted(unknown))}.\n"
            "  A key passed over could change the rotation, so it stops here.\n"
            "  Remove the keys if they have no effect."
        )
    given = {name: block[name] for name in names if block.get(name) is not None}
    for name, value in given.items():
        numbers = value if isinstance(value, list) else [value]
        allowed = all(_is_number(v) or isinstance(v, bool) for v in numbers)
        _require(allowed, source, name, value, "a number, or a list of numbers")
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
    declared = config.get("max_position_embeddings")
    if declared is None:
        raise CheckpointError(f"{source} has no max_position_embeddings.\n  Add the window in tokens.")
    _require(
        _is_number(declared) and declared == int(declared) and declared >= 1,
        source,
        "max_position_embeddings",
        declared,
        "a whole number of tokens",
    )
    original = block.get("original_max_position_embeddings", config.get("original_max_position_embeddings"))
    if original is None:
        factor = getattr(scaling, "factor", None)
        stretched = scaling.rope_type in ("linear", "yarn") and factor is not None and factor > 1
        original = round(declared / factor) if stretched and factor else declared
    _require(
        _is_number(original) and original >= 1,
        source,
        "original_max_position_embeddings",
        original,
        "a whole number of tokens",
    )
    return Window(int(original), int(declared))


def _rotary_dim(config: dict[str, Any], block: dict[str, Any], source: str) -> int:
    head_dim = config.get("head_dim")
    if head_dim is None:
        for key in ("hidden_size", "num_attention_heads"):
            _require(_is_number(config.get(key)) and config[key] >= 1, source, key, config.get(key), "a whole number")
        head_dim = config["hidden_size"] // config["num_attention_heads"]
    share = block.get("partial_rotary_factor", config.get("partial_rotary_factor"))
    share = 1.0 if share is None else share
    _require(_is_number(head_dim) and _is_number(share), source, "head_dim", head_dim, "a whole number")
    return int(head_dim * share)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")


def _as_float(value: Any) -> Any:
    return float(value) if _is_number(value) else value


def _require(holds: bool, source: str, key: str, value: Any, expected: str) -> None:
    if not holds:
        raise CheckpointError(
            f"{key} is {value!r} in {source}.\n  Expected {expected}.\n  Correct it, or fetch the checkpoint again."
        )


__all__ = ["DEFAULT_THETA", "FULL_ATTENTION", "LENGTH_ALIASES", "OTHER_POSITIONS", "LongRope", "read_ropes", "written"]
