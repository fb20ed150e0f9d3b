"""Text Generation Inference, state of 2026-01-08: server/text_generation_server/layers/rotary.py
(PositionRotaryEmbedding.static), models/flash_causal_lm.py for the length.

The config comes through transformers 4.51. `linear` is passed over; YaRN's betas and `truncate` are fixed.
"""

from ropewalk.rope.scalings import SCALINGS, Unscaled, Yarn
from ropewalk.runtimes import transformers4
from ropewalk.runtimes.reading import DECLARED, ORIGINAL, Config, Refused, Served, rope_type, scaled, unless
from ropewalk.runtimes.temperatures import longrope_attention_factor, mscale_ratio

# flash_llama_modeling.py and flash_qwen2_modeling.py divide the hidden size by the heads and read no head_dim.
IGNORES_HEAD_DIM = ("llama", "phi3", "qwen2")


def reads(config: Config, window: int) -> Served | Refused:
    if refusal := transformers4.phi3_refusal(config):
        return refusal
    if config.get("model_type") in IGNORES_HEAD_DIM:
        config = {**config, "head_dim": None}
    block, declared = config.get("rope_scaling") or {}, config[DECLARED]
    kind, original, fixed = rope_type(block), declared, {}
    if kind not in SCALINGS:
        return Refused(f"rope_type {kind!r} is not one that it knows")
    if kind == "yarn":
        original = block[ORIGINAL]
        ratio = mscale_ratio(block["factor"], block.get("mscale", 1.0), block.get("mscale_all_dim", 0.0))
        scaling = Yarn(block["factor"], attention_factor=ratio)
    elif kind == "linear":
        scaling = Unscaled()
    else:
        if kind == "llama3":
            original = block[ORIGINAL]
        elif kind == "longrope":
            original = config[ORIGINAL]  # at the top; the block's own is not read
            fixed = {"attention_factor": longrope_attention_factor(declared, original)}
        scaling = scaled(SCALINGS[kind], block, **fixed)
    theta, dim = transformers4.theta(config), transformers4.dimensions(config)
    frequencies = scaling.frequencies(theta, dim, original, window)
    # longrope turns each position by the set it lies in; dynamic grows when a longer text arrives
    early = scaling.frequencies(theta, dim, original, original)
    flag = unless(declared == window, f"--max-total-tokens {window} --max-input-tokens {window - 1}")
    return Served(frequencies, declared, flag, early=early)
