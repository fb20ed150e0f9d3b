"""llama.cpp, as llama-cpp-python 0.3.36 holds it, with a GGUF made by its converter: conversion/base.py, llama.py, phi.py
and minicpm.py, src/llama-context.cpp, src/llama-model.cpp (get_rope_factors), rope_yarn of ggml/src/ggml-cpu/ops.cpp.

The converter loads the config through transformers 5, and as it stands where that refuses. YaRN's temperature is always
0.1 ln(factor) + 1: the factor that the converter writes is overwritten when the context is made.
Not covered: older converters, which looked for llama3's original window at the top of the config and took it for 8192.
"""

from ropewalk.rope.scalings import Linear, Llama3, LongRope, Scaling, Unscaled, Yarn
from ropewalk.runtimes import transformers5
from ropewalk.runtimes.reading import DECLARED, ORIGINAL, Config, Refused, Served, rope_type, scaled, unless
from ropewalk.runtimes.temperatures import longrope_attention_factor

# Types whose converter writes llama3's divisors (generate_extra_tensors): LlamaModel and its heirs, EXAONE, Deci.
WRITES_LLAMA3 = (
    "llama", "mistral", "mixtral", "ministral3", "arcee", "smollm3", "granite", "apertus", "afmoe",
    "exaone", "exaone4", "nemotron-nas",
)  # fmt: skip

LOADS_BETAS = ("ministral3", "grok")


def reads(config: Config, window: int) -> Served | Refused:
    block = transformers5.parameters(config)
    if isinstance(block, Refused):
        block = {"rope_theta": config.get("rope_theta")} | (config.get("rope_parameters") or config["rope_scaling"])
    family, kind, declared = config.get("model_type"), rope_type(block), config[DECLARED]
    scaling, original = _scaling(block, kind, str(family), declared)
    passed_over = kind != "default" and isinstance(scaling, Unscaled)
    notes = (f"its converter passes {kind} over for {family}",) if passed_over else ()
    dim = transformers5.dimensions(config, block)
    frequencies = scaling.frequencies(block["rope_theta"], dim, original, window)
    return Served(frequencies, declared, unless(declared == window, f"-c {window}"), notes)


def _scaling(block: Config, kind: str, family: str, declared: int) -> tuple[Scaling, int]:
    """What the GGUF says of the scaling, and of the original window."""
    original = block.get(ORIGINAL, declared)
    if family == "phi3":  # its converter writes two sets and their temperature, and no type
        if not block.get("long_factor"):
            return Unscaled(), original
        return scaled(LongRope, block, attention_factor=longrope_attention_factor(declared, original)), original
    if kind == "longrope" and family in ("minicpm", "minicpm3"):  # neither a temperature nor an original window
        return scaled(LongRope, block, attention_factor=1.0), declared
    if kind == "linear":
        return scaled(Linear, block), original
    if kind == "yarn":
        # the GGUF holds the betas, and few architectures load them
        betas = {} if family in LOADS_BETAS else {"beta_fast": 32.0, "beta_slow": 1.0}
        tempered = {"attention_factor": None, "mscale": None, "mscale_all_dim": None}
        return scaled(Yarn, block, truncate=True, **tempered, **betas), original
    if kind == "llama3" and family in WRITES_LLAMA3:
        return scaled(Llama3, block), original
    return Unscaled(), original
