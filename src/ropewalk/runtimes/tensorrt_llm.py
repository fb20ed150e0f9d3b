"""TensorRT-LLM, PyTorch backend, state of 2026: _torch/attention_backend/interface.py (RopeParams), its
RopeEmbeddingUtils, _torch/models/modeling_utils.py (infer_max_seq_len).

The config comes through transformers 5. `attention_factor` and `truncate` are not read; `dynamic` grows theta by `alpha`
alone. The table of angles ends at the declared length, though a linear or dynamic factor multiplies the served one.
"""

import math

from ropewalk.rope.scalings import SCALINGS, Scaling, Unscaled
from ropewalk.runtimes import transformers5
from ropewalk.runtimes.reading import DECLARED, ORIGINAL, Config, Refused, Served, rope_type, scaled, unless
from ropewalk.runtimes.temperatures import longrope_attention_factor, mscale_ratio

DEFAULT_ORIGINAL = 1024
KEEPS_LENGTH = ("su", "longrope", "llama3", "yarn")


def reads(config: Config, window: int) -> Served | Refused:
    block = transformers5.parameters(config)
    if isinstance(block, Refused):
        return block
    kind, declared, theta = rope_type(block, first="type"), config[DECLARED], block["rope_theta"]
    if kind not in SCALINGS:
        return Refused(f"rope_type {kind!r} is not one that it knows")
    original, dim = block.get(ORIGINAL, DEFAULT_ORIGINAL), transformers5.dimensions(config, block)
    fixed: Config = {}
    if kind == "yarn":
        ratio = mscale_ratio(block.get("factor", 1.0), block.get("mscale", 1.0), block.get("mscale_all_dim", 0.0))
        fixed = {"attention_factor": ratio, "truncate": True}
    elif kind == "longrope":
        fixed = {"attention_factor": longrope_attention_factor(declared, original)}
        if (config.get("max_seq_len") or math.inf) > original:
            fixed["short_factor"] = tuple(block["long_factor"])
        else:
            fixed["long_factor"] = tuple(block["short_factor"])
    scaling: Scaling = scaled(SCALINGS[kind], block, **fixed)
    if kind == "dynamic":
        scaling, theta = Unscaled(), theta * block.get("alpha", 1.0) ** (dim / (dim - 2))
    frequencies = scaling.frequencies(theta, dim, original, window)
    max_length = declared if kind in KEEPS_LENGTH else math.ceil(declared * block.get("factor", 1.0))
    if window > declared:
        return Served(frequencies, declared, notes=(f"its table of angles ends at {declared} tokens",))
    return Served(frequencies, max_length, unless(max_length == window, f"--max_seq_len {window}"))
