"""Where a config.json speaks of rotation: its language model's part, the rope block of each kind of layer, its heads.

The words differ by schema (`rope_parameters` of transformers 5, flat or one block a kind of layer; `rope_theta` with
`rope_scaling` of transformers 4 and the runtimes that follow it) and by the age of some families; here they are found.
What a block means is `rope_config`'s, and putting one down `rope_writing`'s.
"""

from typing import Any

from ropewalk.checkpoint.families import (
    DEFAULT_PARTIAL,
    DEFAULT_THETA,
    FULL_ATTENTION,
    LAYERED_KEYS,
    LAYERED_THETA,
    PARTIAL_KEYS,
    SCALED_UNSAID,
    THETA_KEYS,
)
from ropewalk.checkpoint.values import first_said, require, whole
from ropewalk.errors import CheckpointError
from ropewalk.rope.scalings import Scaling

Block = dict[str, Any]

ORIGINAL = "original_max_position_embeddings"
# Words for one thing; the first that is there is read. Dbrx has the second of each, Ling the third for its window.
WINDOW_KEYS = ("max_position_embeddings", "max_seq_len", "model_max_length")
_WIDTH_KEYS, _HEADS_KEYS = ("hidden_size", "d_model"), ("num_attention_heads", "n_heads")

# The sides of a model that cost is reckoned from, each under any of its words
SIDES: dict[str, tuple[str, ...]] = {
    "heads": _HEADS_KEYS,
    "head_dim": ("head_dim",),
    "hidden": _WIDTH_KEYS,
    "layers": ("num_hidden_layers", "n_layers"),
    "key_heads": ("num_key_value_heads",),
}

# Keys of a block that are no field of a scaling and change no frequency; they stay as they are.
KEPT_KEYS = ("mrope_section", "mrope_interleaved", "llama_4_scaling_beta")


def text_section(config: dict[str, Any]) -> dict[str, Any]:
    """The part of a config that speaks of the language model: all of it, or `text_config` of a model with other parts."""
    nested = config.get("text_config")
    speaks = any(key in config for key in ("rope_parameters", "rope_theta", "rope_scaling", "hidden_size"))
    return nested if isinstance(nested, dict) and not speaks else config


def rope_blocks(text: dict[str, Any], source: str) -> dict[str, Block]:
    """The rope block of each kind of layer, whatever the schema, theta included."""
    model_type = str(text.get("model_type"))
    block, legacy = text.get("rope_parameters") or {}, text.get("rope_scaling") or {}
    for key, value in (("rope_parameters", block), ("rope_scaling", legacy)):
        require(isinstance(value, dict), value, key, source, "an object")
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
    return _layered(text, model_type, kinds, legacy, source)


def _layered(
    text: dict[str, Any], model_type: str, kinds: dict[str, Block], legacy: Block, source: str
) -> dict[str, Block]:
    """A block for each kind of layer, from its own words and the type's defaults."""
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


def implied_original(declared: int, scaling: Scaling) -> int:
    """The original window of a config that does not state it: what the factor stretched, or the declared one."""
    factor = getattr(scaling, "factor", None)
    stretched = scaling.rope_type in ("linear", "yarn") and factor is not None and factor > 1
    return round(declared / factor) if stretched and factor else declared


def partial_share(config: dict[str, Any], block: Block) -> Any:
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


def derived_head_dim(config: dict[str, Any], source: str) -> int:
    """Width over heads: the dimension of a head where a config does not say it."""
    width, heads = (whole(first_said(config, keys), keys[0], source) for keys in (_WIDTH_KEYS, _HEADS_KEYS))
    return width // heads
