"""ExLlamaV2 0.3.2 (state of 2025-12-09): config.py, rope.py, device.py.

Reads `rope_theta` and `rope_scaling` only. YaRN's ramp is laid between pairs of the served window instead of the
original one, with fixed betas and temperature.
"""

from ropewalk.rope.scalings import Linear, Llama3, LongRope, Scaling, Unscaled, Yarn
from ropewalk.runtimes.reading import DECLARED, ORIGINAL, Config, Refused, Served, rope_type, rotary_dim, scaled, unless
from ropewalk.runtimes.temperatures import longrope_attention_factor

# The first of these that is there.
LENGTHS = ("max_sequence_length", "model_max_length", DECLARED, "max_seq_len", "n_positions")


def reads(config: Config, window: int) -> Served | Refused:
    block = config.get("rope_scaling") or {}
    if block.get("type") and block.get("rope_type"):
        return Refused("it stops at a rope_scaling with both type and rope_type")
    kind, original = rope_type(block), window
    scaling: Scaling = Unscaled()
    if kind == "linear":
        scaling = scaled(Linear, block)
    elif kind == "llama3":
        original, scaling = block[ORIGINAL], scaled(Llama3, block)
    elif kind == "yarn" and window > block[ORIGINAL]:
        scaling = Yarn(block["factor"])
    elif kind in ("longrope", "su"):
        original = config[ORIGINAL]  # at the top; the block's own is not read
        scaling = scaled(LongRope, block, attention_factor=longrope_attention_factor(window, original))
    theta, dim = config.get("rope_theta", 10_000.0), rotary_dim(config, config.get("partial_rotary_factor"))
    max_length = next(config[key] for key in LENGTHS if config.get(key) is not None)
    frequencies = scaling.frequencies(theta, dim, original, window)
    return Served(frequencies, max_length, unless(max_length == window, f"--length {window}"))
