"""mlx-lm 0.32.2: models/rope_utils.py (initialize_rope), models/llama.py, qwen2.py, qwen3.py, phi3.py.

Most of its model files read `rope_theta` and `rope_scaling` only. `type` comes before `rope_type`; `attention_factor`
and `truncate` are not read. No length is enforced.
"""

from ropewalk.rope.scalings import SCALINGS
from ropewalk.runtimes.reading import DECLARED, ORIGINAL, Config, Refused, Served, rope_type, rotary_dim, scaled
from ropewalk.runtimes.temperatures import longrope_attention_factor, mscale_ratio

# Model files that fall back on rope_parameters; without either they stop (those of the families read here).
READS_PARAMETERS = ("qwen3", "ministral3")
# Defaults of the model files where rope_theta is missing; elsewhere 10000.
DEFAULT_THETA = {"qwen2": 1e6, "mixtral": 1e6, "starcoder2": 1e5}
YARN_ORIGINAL, LLAMA3_ORIGINAL, PHI3_ORIGINAL = 4096, 8192, 4096


def reads(config: Config, window: int) -> Served | Refused:
    family, declared = config.get("model_type"), config[DECLARED]
    block, theta = config.get("rope_scaling") or {}, config.get("rope_theta")
    if family in READS_PARAMETERS:
        parameters = config.get("rope_parameters") or {}
        block, theta = block or parameters, theta or parameters["rope_theta"]
    if family == "phi3" and block and not {"type", "long_factor"} <= block.keys():
        return Refused("phi3 wants its rope_scaling with the keys type and long_factor")
    kind, original = rope_type(block, first="type"), declared
    fixed: Config = {}
    if kind not in SCALINGS:
        return Refused(f"rope_type {kind!r} is not one that it knows")
    if kind == "llama3":
        original = block.get(ORIGINAL, LLAMA3_ORIGINAL)
    elif kind == "yarn":
        original = block.get(ORIGINAL, YARN_ORIGINAL)
        ratio = mscale_ratio(block["factor"], block.get("mscale", 1), block.get("mscale_all_dim", 0))
        fixed = {"attention_factor": ratio, "truncate": True}
    elif kind == "longrope":
        original = config.get(ORIGINAL, PHI3_ORIGINAL) if family == "phi3" else block[ORIGINAL]
        # the long set at any length
        fixed = {"short_factor": tuple(block["long_factor"])}
        fixed["attention_factor"] = longrope_attention_factor(declared, original)
    scaling = scaled(SCALINGS[kind], block, **fixed)
    if theta is None:
        theta = DEFAULT_THETA.get(str(family), 10_000.0)
    dim = rotary_dim(config, config.get("partial_rotary_factor"))
    frequencies = scaling.frequencies(theta, dim, original, window)
    # dynamic grows with the text, and cached keys keep an older theta
    return Served(frequencies, None, early=scaling.frequencies(theta, dim, original, original))
