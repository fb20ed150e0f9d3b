"""MLC LLM, state of 2026-07-23: python/mlc_llm/model/llama/llama_model.py, qwen2/qwen2_model.py, phi3/phi3_model.py.

Only `rope_theta` is read, and `rope_scaling` by the files of Llama (llama3 alone) and Phi-3 (longrope, spelt `type`).
"""

from ropewalk.rope.scalings import Llama3, LongRope, Scaling, Unscaled
from ropewalk.runtimes.reading import DECLARED, ORIGINAL, Config, Refused, Served, rotary_dim, scaled, unless
from ropewalk.runtimes.temperatures import longrope_attention_factor

# Fields without a default in its dataclasses; the other families take 10000.
NEEDS_THETA = ("qwen2", "qwen3")


def reads(config: Config, window: int) -> Served | Refused:
    family, declared, block = config.get("model_type"), config[DECLARED], config.get("rope_scaling") or {}
    theta = config["rope_theta"] if family in NEEDS_THETA else config.get("rope_theta", 10_000.0)
    scaling: Scaling = Unscaled()
    original, notes = declared, ()
    if family == "llama" and "rope_type" in block:
        if block["rope_type"] != "llama3":
            return Refused(f"its Llama takes no rope_type but llama3, and this one is {block['rope_type']}")
        original, scaling = block[ORIGINAL], scaled(Llama3, block)
    elif family == "phi3" and "type" in block:
        if block["type"] not in ("longrope", "su"):
            return Refused(f"its Phi-3 takes no type but longrope, and this one is {block['type']}")
        original = config[ORIGINAL]
        temperature = longrope_attention_factor(declared, original)
        long_set = tuple(block["long_factor"])  # at any length
        scaling = scaled(LongRope, block, attention_factor=temperature, short_factor=long_set)
    elif block:
        notes = (f"it does not read rope_scaling for {family}",)
    dim = rotary_dim(config, config.get("partial_rotary_factor") if family == "phi3" else None)
    frequencies = scaling.frequencies(theta, dim, original, window)
    return Served(frequencies, declared, unless(declared == window, f"--context-window-size {window}"), notes)
