"""Attention factors that several runtimes compute from other keys than transformers does."""

import math

from ropewalk.rope.scalings import yarn_attention_factor


def mscale_ratio(factor: float, mscale: float, mscale_all_dim: float) -> float:
    """YaRN's temperature as DeepSeek's code has it, which several runtimes copied."""
    return yarn_attention_factor(factor, mscale) / yarn_attention_factor(factor, mscale_all_dim)


def longrope_attention_factor(declared: int, original: int) -> float:
    """LongRoPE's temperature from the two lengths, for runtimes that read neither `factor` nor `attention_factor`."""
    return math.sqrt(1 + math.log(declared / original) / math.log(original)) if declared > original else 1.0
