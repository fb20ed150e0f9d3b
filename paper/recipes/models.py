"""What the recipes are made for: the paper's four LLaMAs, and small open models whose window is short today.

Of each: its hub id, what of its config.json decides shape and rotation (so that nothing has to be fetched to plan and to
try a recipe), the targets, and how the paper tuned it. Data sets are named by the commit they had on the hub when this was
written; of a model, `run.json` records what was read.
"""

from dataclasses import dataclass, field
from typing import Any

from ropewalk.planning.shapes import paper_config

PILE = "hf:monology/pile-uncopyrighted@3be90335b66f24456a5d6659d9c8d208c0357119"
RED_PAJAMA = "hf:cerebras/SlimPajama-627B@2d0accdd58c5d5511943ca1f5ff0e3eb5e293543"
BOOKS = "hf:emozilla/pg19@c021754c8e01c5b1cc83a1f549c1f97fbbb756b8::test"
TARGETS = (8192, 16384, 32768)
DIRECT_STEPS = 10_000


@dataclass(frozen=True)
class Model:
    """`sequences` of a step by target; `parameters` as counted by transformers. `direct` are targets of the baseline."""

    name: str
    hub_id: str
    config: dict[str, Any]
    parameters: int
    learning_rate: str
    targets: tuple[int, ...] = TARGETS
    direct: tuple[int, ...] = (8192,)
    sequences: dict[int, int] = field(default_factory=lambda: {8192: 64, 16384: 128, 32768: 128})
    papers_gpus: dict[int, int] = field(default_factory=dict)


def _llama(name: str, hub_id: str, parameters: int, learning_rate: str, **more: Any) -> Model:
    return Model(name, hub_id, paper_config(name), parameters, learning_rate, **more)


_PAPERS_GPUS = {8192: 32, 16384: 128, 32768: 128}
_ALIKE = {8192: 64, 16384: 32, 32768: 16}  # half a million tokens a step at each target

MODELS = (
    _llama("llama-7b", "huggyllama/llama-7b", 6_738_415_616, "2e-5", papers_gpus=_PAPERS_GPUS),
    _llama("llama-13b", "huggyllama/llama-13b", 13_015_864_320, "2e-5", papers_gpus=_PAPERS_GPUS),
    _llama("llama-33b", "huggyllama/llama-30b", 32_528_943_616, "1e-5", papers_gpus=_PAPERS_GPUS),
    _llama(
        "llama-65b",
        "huggyllama/llama-65b",
        65_285_660_672,
        "1e-5",
        papers_gpus=dict.fromkeys(TARGETS, 128),
        sequences=dict.fromkeys(TARGETS, 128),
        direct=(),
    ),
    Model(
        "tinyllama-1.1b",
        "TinyLlama/TinyLlama_v1.1",
        {
            "model_type": "llama",
            "hidden_size": 2048,
            "num_hidden_layers": 22,
            "num_attention_heads": 32,
            "num_key_value_heads": 4,
            "intermediate_size": 5632,
            "vocab_size": 32000,
            "max_position_embeddings": 2048,
            "rope_theta": 10000.0,
        },
        1_100_048_384,
        "2e-5",
        sequences=_ALIKE,
    ),
    Model(
        "olmo2-1b",
        "allenai/OLMo-2-0425-1B",
        {
            "model_type": "olmo2",
            "hidden_size": 2048,
            "num_hidden_layers": 16,
            "num_attention_heads": 16,
            "num_key_value_heads": 16,
            "intermediate_size": 8192,
            "vocab_size": 100352,
            "max_position_embeddings": 4096,
            "rope_theta": 500000.0,
        },
        1_484_916_736,
        "2e-5",
        sequences=_ALIKE,
    ),
    Model(
        "smollm2-360m",
        "HuggingFaceTB/SmolLM2-360M",
        {
            "model_type": "llama",
            "hidden_size": 960,
            "num_hidden_layers": 32,
            "num_attention_heads": 15,
            "num_key_value_heads": 5,
            "intermediate_size": 2560,
            "vocab_size": 49152,
            "max_position_embeddings": 8192,
            "rope_theta": 100000.0,
            "tie_word_embeddings": True,
        },
        361_821_120,
        "2e-5",
        targets=(16384, 32768),
        direct=(16384,),
        sequences=_ALIKE,
    ),
    Model(
        "smollm2-1.7b",
        "HuggingFaceTB/SmolLM2-1.7B",
        {
            "model_type": "llama",
            "hidden_size": 2048,
            "num_hidden_layers": 24,
            "num_attention_heads": 32,
            "num_key_value_heads": 32,
            "intermediate_size": 8192,
            "vocab_size": 49152,
            "max_position_embeddings": 8192,
            "rope_theta": 130000.0,
            "tie_word_embeddings": True,
        },
        1_711_376_384,
        "2e-5",
        targets=(16384, 32768),
        direct=(16384,),
        sequences=_ALIKE,
    ),
)
