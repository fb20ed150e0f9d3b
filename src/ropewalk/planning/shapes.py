"""The sides of a model, read from its config.json alone, and how many numbers it has. No weights are needed.

Of each family listed here the count equals that of transformers' own model, which the tests build without memory. Other
families are counted from the headers of their weights, if those are there.
"""

from dataclasses import dataclass
from typing import Any

from ropewalk.checkpoint.rope_blocks import text_section
from ropewalk.checkpoint.values import first_said, whole
from ropewalk.errors import CheckpointError

# d hidden, a = heads x head_dim, k = key heads x head_dim, f inner width of the MLP, V vocabulary


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What memory and time follow from. `layer_matrices` are a layer's numbers that take part in products."""

    layers: int
    hidden: int
    heads: int
    key_heads: int
    head_dim: int
    inner: int
    vocabulary: int
    gated: bool
    fused: bool  # one projection makes queries, keys and values
    tied: bool
    layer_matrices: int
    norms: int
    parameters: int

    @property
    def attended(self) -> int:
        """Width of queries and of what attention gives."""
        return self.heads * self.head_dim

    @property
    def keyed(self) -> int:
        """Width of keys, and of values."""
        return self.key_heads * self.head_dim

    @property
    def body(self) -> int:
        """Numbers of all layers that take part in products."""
        return self.layers * self.layer_matrices

    @property
    def head(self) -> int:
        """Numbers of the product that gives logits; the embedding has as many."""
        return self.hidden * self.vocabulary

    @property
    def largest_matrix(self) -> int:
        return self.hidden * max(self.inner, self.attended)


@dataclass(frozen=True, kw_only=True)
class Family:
    """What a model type decides that its config.json may leave unsaid, from its classes in transformers 5.23."""

    layer_norms: int = 2
    head_norms: str = ""  # "head": queries and keys normed head by head; "whole": across all heads
    biases: str = "said"  # "said": attention_bias of all four projections; "qkv": always, of three; "none"; "all"
    gated: bool = True
    fused: bool = False
    tied: bool = False
    head_dim: int | None = None
    key_heads: int | None = None  # None: as many as heads


FAMILIES: dict[str, Family] = {
    "llama": Family(),
    "granite": Family(),
    "mistral": Family(biases="none", key_heads=8),
    "phi3": Family(biases="none", fused=True),
    "qwen2": Family(biases="qkv"),
    "qwen3": Family(head_norms="head", head_dim=128),
    "olmo2": Family(head_norms="whole"),
    "gemma": Family(tied=True, head_dim=256),
    "gemma2": Family(layer_norms=4, tied=True, head_dim=256),
    "gemma3_text": Family(layer_norms=4, head_norms="head", tied=True, head_dim=256),
    "gpt_neox": Family(biases="all", gated=False, fused=True),
}

_SIDES = {
    "num_hidden_layers": ("num_hidden_layers", "n_layers"),
    "hidden_size": ("hidden_size", "d_model"),
    "num_attention_heads": ("num_attention_heads", "n_heads"),
    "vocab_size": ("vocab_size",),
}

PAPER_SIZES: dict[str, dict[str, int]] = {
    name: {"hidden_size": d, "num_hidden_layers": n, "num_attention_heads": h, "intermediate_size": f}
    for name, d, n, h, f in (
        ("llama-7b", 4096, 32, 32, 11008),
        ("llama-13b", 5120, 40, 40, 13824),
        ("llama-33b", 6656, 60, 52, 17920),
        ("llama-65b", 8192, 80, 64, 22016),
    )
}


def paper_config(name: str) -> dict[str, Any]:
    """The config.json of a LLaMA that the paper lengthened: a window of 2,048 and 32,000 tokens."""
    same = {"model_type": "llama", "vocab_size": 32000, "max_position_embeddings": 2048, "rope_theta": 10000.0}
    return same | PAPER_SIZES[name]


def shape_of(config: dict[str, Any], stored: int | None = None, source: str = "config.json") -> Shape:
    """The shape of a config. `stored` is the count of its weights, which settles it for a family not listed here.

    Raises CheckpointError for a side that is missing or no whole number, and for such a family without weights.
    """
    text = text_section(config)
    sides = {key: whole(first_said(text, words), key, source) for key, words in _SIDES.items()}
    family = FAMILIES.get(str(text.get("model_type")))
    known = family or Family()
    heads, hidden = sides["num_attention_heads"], sides["hidden_size"]
    said_dim, said_keys = text.get("head_dim") or known.head_dim, text.get("num_key_value_heads") or known.key_heads
    said_tied = text.get("tie_word_embeddings")
    given = {
        "layers": sides["num_hidden_layers"],
        "hidden": hidden,
        "heads": heads,
        "key_heads": heads if said_keys is None else whole(said_keys, "num_key_value_heads", source),
        "head_dim": hidden // heads if said_dim is None else whole(said_dim, "head_dim", source),
        "inner": whole(text.get("intermediate_size") or 4 * hidden, "intermediate_size", source),
        "vocabulary": sides["vocab_size"],
        "gated": known.gated,
        "fused": known.fused,
        "tied": known.tied if said_tied is None else bool(said_tied),
    }
    if family is not None:
        return _counted(given, family, text)
    if stored is None:
        raise CheckpointError(
            f"cannot count the parameters of {source}: model_type {text.get('model_type')!r} has no formula here, and "
            "there are no weights beside it.\n"
            f"  Counted from config.json alone: {', '.join(FAMILIES)}.\n"
            "  Fetch the weights too: they are counted from their headers, without loading them."
        )
    embeddings = given["hidden"] * given["vocabulary"] * (1 if given["tied"] else 2)
    layer = max(1, (stored - embeddings) // given["layers"])
    return Shape(**given, layer_matrices=layer, norms=0, parameters=stored)


def _counted(given: dict[str, Any], family: Family, text: dict[str, Any]) -> Shape:
    """The shape of a known family: every matrix, bias and norm counted."""
    d, f, n, head_dim = given["hidden"], given["inner"], given["layers"], given["head_dim"]
    a, k = given["heads"] * head_dim, given["key_heads"] * head_dim
    matrices = d * (a + 2 * k) + a * d + (3 if family.gated else 2) * d * f
    whole_bias = family.biases == "all"
    with_bias = whole_bias or (family.biases == "said" and bool(text.get("attention_bias")))
    biases = a + 2 * k + d if with_bias and text.get("attention_bias") is not False else 0
    biases += a + 2 * k if family.biases == "qkv" else 0
    biases += f + d if whole_bias else 0
    biases += 2 * f + d if family.gated and text.get("mlp_bias") else 0
    norm = 2 * d if whole_bias else d  # a LayerNorm has a bias too
    norms = family.layer_norms * norm + {"": 0, "head": 2 * head_dim, "whole": a + k}[family.head_norms]
    embeddings = d * given["vocabulary"] * (1 if given["tied"] else 2)
    total = n * (matrices + biases + norms) + norm + embeddings
    return Shape(**given, layer_matrices=matrices, norms=n * norms + norm, parameters=total)
