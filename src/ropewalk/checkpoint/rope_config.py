"""config.json -> RopeSpec: what its rope blocks mean, and where they contradict themselves.

A key that this version does not know stops the reading: passed over, it could change the rotation.
"""

import dataclasses
from typing import Any

import numpy as np

from ropewalk.checkpoint.families import FULL_ATTENTION, assert_within_reach
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
from ropewalk.checkpoint.values import first_said, is_number, number, require, whole
from ropewalk.errors import CheckpointError
from ropewalk.reading import shown
from ropewalk.rope.scalings import SCALINGS, DynamicNtk, Scaling, Unscaled
from ropewalk.rope.spec import RopeSpec, Window

_HEAD_KEYS = ("qk_rope_head_dim", "attention_head_dim", "head_dim", "kv_channels")

# Keys of a block that are not fields of a scaling: read elsewhere, or kept. Ministral 3 repeats the window in its block.
_READ_KEYS = {"rope_type", "type", "rope_theta", "partial_rotary_factor", ORIGINAL}
_OTHER_KEYS = {*_READ_KEYS, *KEPT_KEYS, "max_position_embeddings"}
_OLDER_TYPES = {"mrope": "default", "su": "longrope"}  # Qwen2-VL's word and Phi-3's first one


def read_ropes(config: dict[str, Any], source: str) -> dict[str, RopeSpec]:
    """The rotation of each kind of layer. `source` names the file in messages.

    Raises CheckpointError when the model has no rotary positions, or a block that this version cannot read.
    """
    assert_within_reach(config, source)
    text = text_section(config)
    assert_within_reach(text, source)
    return {kind: _read_rope(text, kind, block, source) for kind, block in rope_blocks(text, source).items()}


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


def _read_rope(text: dict[str, Any], kind: str, block: Block, source: str) -> RopeSpec:
    theta = number(block.get("rope_theta"), "rope_theta", source)
    scaling = _read_scaling(block, source)
    window = _read_window(text, block, scaling, source)
    if kind != FULL_ATTENTION and isinstance(scaling, Unscaled):
        window = Window(window.original, window.original)
    return RopeSpec(theta=float(theta), rotary_dim=_rotary_dim(text, block, source), window=window, scaling=scaling)


def _read_scaling(block: Block, source: str) -> Scaling:
    kind = _scaling_kind(block, source)
    names = {f.name for f in dataclasses.fields(kind)}
    unknown = block.keys() - names - _OTHER_KEYS
    if unknown:
        raise CheckpointError(
            f"{source} has keys beside rope_type {kind.rope_type!r} that ropewalk does not know: "
            f"{', '.join(sorted(unknown))[:200]}.\n"
            "  A key passed over could change the rotation, so it stops here.\n"
            "  Remove the keys if they have no effect."
        )
    given = {name: _read_field(name, block[name], source) for name in names if block.get(name) is not None}
    try:
        return kind(**given)
    except TypeError:
        missing = sorted(
            f.name for f in dataclasses.fields(kind) if f.default is dataclasses.MISSING and f.name not in given
        )
        raise CheckpointError(
            f"{source} has rope_type {kind.rope_type!r} without {', '.join(missing)}.\n"
            "  This scaling is not one without them, and no value can be guessed.\n"
            "  Add what is missing."
        ) from None


def _scaling_kind(block: Block, source: str) -> type[Scaling]:
    said = str(block.get("rope_type", block.get("type", "default")))
    rope_type = _OLDER_TYPES.get(said, said)
    if rope_type not in SCALINGS:
        raise CheckpointError(
            f"{source} asks for the rotation {shown(rope_type)}, which is not one that ropewalk knows.\n"
            f"  Known: {', '.join(SCALINGS)}.\n"
            "  Start from a checkpoint with one of these."
        )
    return SCALINGS[rope_type]


def _read_field(name: str, value: Any, source: str) -> Any:
    """A field of a scaling as the scaling takes it, checked."""
    if name in ("short_factor", "long_factor"):
        allowed = isinstance(value, list) and all(is_number(v) and v > 0 for v in value)
        require(allowed, value, name, source, "a list of numbers above 0, one a rotary pair")
        return tuple(value)
    if name == "truncate":
        require(isinstance(value, bool), value, name, source, "true or false")
        return value
    least = 1 if name == "factor" else 0
    # an mscale of 0 counts as unsaid, as in transformers
    allowed = is_number(value) and (value >= least if least or "mscale" in name else value > 0)
    require(allowed, value, name, source, f"a number {'of at least' if least else 'above'} {least}")
    return value


def _read_window(config: dict[str, Any], block: Block, scaling: Scaling, source: str) -> Window:
    said = first_said(config, WINDOW_KEYS)
    if said is None:
        raise CheckpointError(
            f"{source} has no max_position_embeddings.\n"
            "  It is the window that the model was trained for, in tokens.\n"
            "  Add it."
        )
    declared = whole(said, "max_position_embeddings", source, "a whole number of tokens")
    # at the top level it wins over the block's, as in transformers (Phi-3)
    original = config.get(ORIGINAL, block.get(ORIGINAL))
    if original is None:
        original = implied_original(declared, scaling)
    return Window(whole(original, ORIGINAL, source, "a whole number of tokens"), declared)


def _rotary_dim(config: dict[str, Any], block: Block, source: str) -> int:
    """Rotated dimensions of a head: of latent attention, those of its rotary part; else the share of the head."""
    said, share = first_said(config, _HEAD_KEYS), partial_share(config, block)
    head_dim = derived_head_dim(config, source) if said is None else whole(said, "head_dim", source)
    if share is None or config.get("qk_rope_head_dim") is not None:
        return head_dim
    return int(head_dim * number(share, "partial_rotary_factor", source))
