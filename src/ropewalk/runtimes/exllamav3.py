"""ExLlamaV3 1.4.1 (state of 2026-08-08): model/config.py (read_rope_settings_default), util/rope.py.

Each of theta, block and partial_rotary_factor is looked for on its own, the older place first. YaRN's factor is the
ratio of the two lengths, whatever `factor` says; the mscale pair is read for DeepSeek only, `attention_factor` for all.
"""

from ropewalk.rope.scalings import Linear, Llama3, LongRope, Scaling, Unscaled, Yarn
from ropewalk.runtimes.reading import DECLARED, ORIGINAL, Config, Refused, Served, rope_type, rotary_dim, scaled, unless
from ropewalk.runtimes.temperatures import longrope_attention_factor

LLAMA3_ORIGINAL = 8192


def reads(config: Config, window: int) -> Served | Refused:
    parameters, declared = config.get("rope_parameters") or {}, config[DECLARED]
    block = config.get("rope_scaling") or parameters
    kind, original = rope_type(block), declared
    if kind in ("default", "mrope"):
        scaling: Scaling = Unscaled()
    elif kind == "linear":
        scaling = scaled(Linear, block)
    elif kind == "llama3":
        original, scaling = block.get(ORIGINAL, LLAMA3_ORIGINAL), scaled(Llama3, block)
    elif kind == "yarn":
        original = block.get(ORIGINAL, declared)
        factor = declared / original if ORIGINAL in block else block["factor"]
        scaling = scaled(Yarn, block, factor=factor, mscale=None, mscale_all_dim=None)
    elif kind in ("longrope", "su"):
        original = block.get(ORIGINAL) or config[ORIGINAL]
        scaling = scaled(LongRope, block, attention_factor=longrope_attention_factor(declared, original))
    else:
        return Refused(f"rope_type {kind!r} is not one that it knows")
    theta = config.get("rope_theta") or parameters.get("rope_theta", 10_000.0)
    share = config.get("partial_rotary_factor") or parameters.get("partial_rotary_factor")
    # the set of LongRoPE is chosen by the declared length, once
    length = declared if isinstance(scaling, LongRope) else window
    frequencies = scaling.frequencies(theta, rotary_dim(config, share), original, length)
    return Served(frequencies, declared, unless(declared == window, f"--cache_size {window}"))
