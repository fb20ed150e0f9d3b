"""What a model type alone decides about rotation: facts that its config.json leaves unsaid.

From the configuration and modeling classes of transformers 5.23; the family tests hold every line of it against them.
"""

from typing import Any

from ropewalk.errors import CheckpointError, RopeError

FULL_ATTENTION, SLIDING_ATTENTION = "full_attention", "sliding_attention"

# What models without rotary positions have instead; each line completes "it has ...".
_LEARNED = "a learned table of absolute positions"
_ALIBI = "ALiBi, a bias on attention that grows with distance"
_STATE_SPACE = "no positions at all: it is a state space model"
_RECURRENT = "no positions at all: it is a recurrent network"
_TABLE = "rotary positions held in a fixed table that config.json cannot change"
OTHER_POSITIONS: dict[str, str] = {
    **dict.fromkeys(("gpt2", "gpt_neo", "gpt_bigcode", "opt", "biogpt", "bert", "roberta", "openai-gpt"), _LEARNED),
    "xglm": "sinusoidal absolute positions added to the embeddings",
    "ctrl": "sinusoidal absolute positions added to the embeddings",
    **dict.fromkeys(("bloom", "mpt"), _ALIBI),
    "t5": "relative position buckets",
    **dict.fromkeys(("mamba", "mamba2", "falcon_mamba"), _STATE_SPACE),
    "jamba": "no positions at all: its state space layers keep the order",
    **dict.fromkeys(("rwkv", "xlstm"), _RECURRENT),
    **dict.fromkeys(("gptj", "codegen"), _TABLE),
}

RESAMPLED = frozenset(("gpt2", "opt"))  # whose learned table can be (checkpoint.position_table)
_WITH_TABLE = (
    "Its table can be resampled instead: ropewalk extend MODEL --method interpolate-table; then tune, evaluate."
)
_ELSE = "Use a RoPE checkpoint, such as one of the Llama, Mistral or Qwen families."

# RoPE models whose window config.json alone cannot lengthen, or not yet; each line completes "its ...".
_PROPORTIONAL = "global layers rotate a part of each head by rope_type proportional, which no scaling can be laid over"
OUT_OF_REACH: dict[str, str] = {
    **dict.fromkeys(("gemma4", "gemma4_text", "gemma4_unified", "gemma4_unified_text", "lfm3"), _PROPORTIONAL),
    **dict.fromkeys(
        ("dots3_note", "dots3_note_text"), "layers attend by an index of their own, each with its rotation"
    ),
    "deepseek_v4": "compressed layers have a rotation of their own beside the main one",
    "mimo_v2_flash": "rotated share of a head is rounded in code, so config.json does not say what rotates",
    "phimoe": "longrope block has keys of its own, with a scale for queries and keys each",
    "blt": "window is a number of bytes for four models in one, each with its rotation",
    "recurrent_gemma": "attention is local, and its window is a constant of the architecture",
    **dict.fromkeys(("beam", "cohere_compass_text"), "global layers have no positions; only local ones rotate"),
    **dict.fromkeys(("granite_swa", "granitemoe_swa"), "layers have a theta each (layer_rope_theta)"),
    "zaya": "layers are of two hybrid kinds, each with its rotation",
}

LONGROPE_ONLY = frozenset(("phi3", "phi4_multimodal"))  # these accept rope_type default and longrope, and no other

# rope_theta where config.json has none
DEFAULT_THETA: dict[str, float] = {
    **dict.fromkeys(
        (
            "afmoe", "arcee", "aria_text", "axk1", "axk2", "bamba", "cohere2", "cohere2_moe", "dbrx", "deepseek_v2",
            "deepseek_v3", "deepseek_v32", "diffllama", "doge", "dots1", "exaone4", "exaone_moe", "falcon", "falcon_h1",
            "flint", "gemma", "gemma2", "glm", "glm4", "glm4_moe", "glm4_moe_lite", "glm_moe_dsa", "gpt_neox",
            "gpt_neox_japanese", "granite", "granitemoe", "granitemoehybrid",
            "granitemoeshared", "hrm_text", "hunyuan_v1_dense", "hunyuan_v1_moe", "hy_v4", "hyperclovax", "internlm3",
            "iquestcoder", "jais2", "jetmoe", "kolibri1", "llama", "minicpm3", "ministral", "ministral3", "mistral",
            "moshi", "nanochat", "nemotron", "olmo", "olmo2", "olmo_hybrid", "olmoe", "persimmon", "phi", "phi3",
            "phi4_multimodal", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "qwen3_next", "qwen3_5_text",
            "qwen3_5_moe_text", "qwen4_exp_text", "seed_oss", "stablelm", "starcoder2", "vaultgemma", "youtu", "zamba2",
        ),
        1e4,
    ),
    "helium": 1e5,
    "gpt_oss": 1.5e5,
    **dict.fromkeys(("bitnet", "cohere", "ernie4_5", "ernie4_5_moe", "flex_olmo", "llama4_text", "olmo3", "mllama_text_model"), 5e5),
    **dict.fromkeys(("cwm", "emu3_text_model", "lfm2", "lfm2_moe", "minimax", "mixtral", "solar_open"), 1e6),
    "smollm3": 2e6,
    **dict.fromkeys(("minimax_m2", "minimax_m3_vl_text"), 5e6),
    "bailing_hybrid": 6e6,
    "longcat_flash": 1e7,
    "hy_v3": 11158840.0,
    "apertus": 1.2e7,
}  # fmt: skip

# Types whose kinds of layers rotate differently: theta of each kind where config.json has none
LAYERED_THETA: dict[str, dict[str, float]] = {
    "gemma3_text": {FULL_ATTENTION: 1e6, SLIDING_ATTENTION: 1e4},
    "gemma3n_text": {FULL_ATTENTION: 1e6, SLIDING_ATTENTION: 1e4},
    "modernbert-decoder": {FULL_ATTENTION: 1.6e5, SLIDING_ATTENTION: 1e4},
    "olmo3": {FULL_ATTENTION: 5e5, SLIDING_ATTENTION: 5e5},
    "laguna": {FULL_ATTENTION: 5e5, SLIDING_ATTENTION: 1e4},
    "mellum": {FULL_ATTENTION: 5e5, SLIDING_ATTENTION: 1e4},
}

# How those types said it before rope_parameters: theta of each kind, and whether rope_scaling was the global layers'
LAYERED_KEYS: dict[str, tuple[dict[str, str], bool]] = {
    **dict.fromkeys(
        ("gemma3_text", "gemma3n_text"), ({FULL_ATTENTION: "rope_theta", SLIDING_ATTENTION: "rope_local_base_freq"}, True)
    ),
    "olmo3": ({FULL_ATTENTION: "rope_theta"}, True),
    "modernbert-decoder": (
        {FULL_ATTENTION: "global_rope_theta", SLIDING_ATTENTION: "local_rope_theta"},
        False,
    ),
}  # fmt: skip

# partial_rotary_factor where config.json has none
DEFAULT_PARTIAL: dict[str, float] = {
    **dict.fromkeys(("bamba", "glm", "glm4", "glm4_moe", "nemotron", "persimmon", "phi"), 0.5),
    **dict.fromkeys(("gpt_neox", "stablelm", "qwen3_next", "qwen3_5_text", "qwen3_5_moe_text"), 0.25),
}

# transformers' yarn and longrope divide by an absent head_dim of these
NEEDS_HEAD_DIM = frozenset(("mixtral", "ministral", "minimax", "hunyuan_v1_dense", "hunyuan_v1_moe"))

# Where these have no rope block at all, transformers gives them a scaled one of its own
SCALED_UNSAID = frozenset(("apertus", "cwm", "gpt_oss", "ministral3"))

# Their global layers have no positions; only layers with a sliding window rotate, and those never see further than it
ONLY_LOCAL_ROTATES = frozenset(("afmoe", "cohere2", "cohere2_moe", "exaone4", "exaone_moe", "flint", "kolibri1"))

# Names of older configs: transformers 4 and llama.cpp's converter read these, transformers 5 drops them
THETA_KEYS: dict[str, str] = dict.fromkeys(("gpt_neox", "gpt_neox_japanese"), "rotary_emb_base")
PARTIAL_KEYS: dict[str, str] = dict.fromkeys(("gpt_neox", "gpt_neox_japanese"), "rotary_pct")


def assert_within_reach(config: dict[str, Any], source: str) -> None:
    """Raises CheckpointError for a model type whose window config.json cannot lengthen, saying why."""
    model_type = config.get("model_type")
    if not isinstance(model_type, str):
        return
    if model_type in OTHER_POSITIONS:
        raise CheckpointError(
            f"this is not a model that ropewalk can extend: {source} says model_type {model_type!r}, "
            f"and it has {OTHER_POSITIONS[model_type]}.\n"
            "  Position Interpolation rescales rotary position embeddings set by config.json (RoPE).\n"
            f"  {_WITH_TABLE if model_type in RESAMPLED else _ELSE}"
        )
    if model_type in OUT_OF_REACH:
        raise CheckpointError(
            f"this is not a model that ropewalk can extend: {source} says model_type {model_type!r}; "
            f"its {OUT_OF_REACH[model_type]}.\n"
            "  Use a checkpoint whose layers attend to the whole window and rotate as config.json says."
        )


def assert_scalable(config: dict[str, Any], method: str) -> None:
    """Raises RopeError when no layer that sees the whole window rotates, so that there is nothing to rescale."""
    kinds = config.get("layer_types") or []
    if method != "none" and str(config.get("model_type")) in ONLY_LOCAL_ROTATES and SLIDING_ATTENTION in kinds:
        raise RopeError(
            f"cannot apply {method}: {layer_notes(config)[0]}\n"
            "  Rescaling would disturb layers that never see further than their own window.\n"
            "  Use --method none, which declares the longer window and leaves the rotation alone."
        )


def layer_notes(config: dict[str, Any]) -> list[str]:
    """What a longer window will not do for some layers of this model, in sentences."""
    kinds = config.get("layer_types") or []
    window = config.get("sliding_window")
    if not isinstance(kinds, list) or not isinstance(window, int) or config.get("use_sliding_window") is False:
        return []
    if config.get("model_type") == "mistral" and not kinds:
        return [
            f"every layer sees {window} tokens back and no further (sliding_window); a longer window does not change that."
        ]
    local = kinds.count(SLIDING_ATTENTION)
    if not local:
        return []
    if str(config.get("model_type")) in ONLY_LOCAL_ROTATES:
        return [
            f"only the {local} of {len(kinds)} layers that see {window} tokens rotate; the global ones have no positions."
        ]
    layered = any(isinstance(block, dict) for block in (config.get("rope_parameters") or {}).values())
    if layered or str(config.get("model_type")) in LAYERED_THETA:
        return [f"{local} of {len(kinds)} layers see {window} tokens and keep their rotation."]
    return [
        f"{local} of {len(kinds)} layers see {window} tokens; config.json has one rotation for all layers, so theirs is "
        "rescaled too."
    ]
