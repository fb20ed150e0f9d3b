"""transformers 4.57.6: modeling_rope_utils.py, models/phi3/configuration_phi3.py.

Only `rope_theta` and `rope_scaling` are read: a config with `rope_parameters` alone gets theta 10000 and no scaling.
"""

from ropewalk.rope.scalings import SCALINGS
from ropewalk.runtimes.reading import DECLARED, ORIGINAL, Config, Refused, Served, rope_type, rotary_dim, scaled
from ropewalk.runtimes.transformers5 import by_forward


def reads(config: Config, window: int) -> Served | Refused:
    if refusal := phi3_refusal(config):
        return refusal
    block = config.get("rope_scaling") or {}
    kind = rope_type(block, first="type")
    if kind not in SCALINGS:
        return Refused(f"rope_type {kind!r} is not one that it knows")
    original, fixed = config[DECLARED], {}
    if kind == "yarn":
        original = block.get(ORIGINAL) or original
    elif kind == "llama3":
        original = block[ORIGINAL]
    elif kind == "longrope":
        # its own key inside rope_scaling is accepted and not read
        if config.get(ORIGINAL):
            original = config[ORIGINAL]
            fixed = {"factor": config[DECLARED] / original}
        elif block.get("factor") is None and block.get("attention_factor") is None:
            return Refused(f"longrope without factor and without {ORIGINAL} at the top of the config")
    scaling = scaled(SCALINGS[kind], block, **fixed)
    return by_forward(scaling, config, theta(config), dimensions(config), original, window)


def theta(config: Config) -> float:
    return config.get("rope_theta", 10_000.0)


def dimensions(config: Config) -> int:
    return rotary_dim(config, config.get("partial_rotary_factor"))


def phi3_refusal(config: Config) -> Refused | None:
    """Phi3Config demands rope_scaling to be exactly type, short_factor and long_factor."""
    block = config.get("rope_scaling")
    if config.get("model_type") != "phi3" or not block:
        return None
    if len(block) == 3 and block.get("type") in ("longrope", "su", "yarn"):
        return None
    return Refused("phi3 takes no rope_scaling but type, short_factor and long_factor, three keys")
