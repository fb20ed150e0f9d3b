"""What the paper's theory is about, read from a real model: the h_j of each head for pairs of a query and a key.

Before rotation, a query's pair j is the complex number q_j and a key's k_j; h_j = q_j times the conjugate of k_j, over the
square root of the head dimension, so that a(s) = Re sum_j h_j e^(i s theta_j) is the logit that softmax takes.

Shape letters: N = sampled pairs of query and key, H = heads of queries, L = tokens, D = head dimension, F = rotary pairs.
"""

import argparse
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ropewalk.checkpoint.folder import open_checkpoint
from ropewalk.errors import DataError
from ropewalk.evals.documents import Selection, scored_documents
from ropewalk.model.load import load_model
from ropewalk.model.view import layer_view
from ropewalk.progress import silent
from ropewalk.rope.scalings import Unscaled

DOCUMENTS = 4


@dataclass(frozen=True)
class Heads:
    """`h` holds (layer, head) -> (N, F) complex; `distances` is each pair's own, (N,). For rows that do not differ."""

    h: dict[tuple[int, int], np.ndarray]
    distances: np.ndarray
    inverse_F: np.ndarray
    theta: float
    window: int


def options(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """What the scripts that read a model take."""
    parser.add_argument("--model", default="pilot", help="folder, hub id or pilot (%(default)s)")
    parser.add_argument("--data", nargs="+", default=["pilot"], help="texts (the pilot's held-out modules)")
    parser.add_argument("--pairs", type=int, default=128, help="pairs of query and key of each document (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    return parser


@torch.inference_mode()
def read_heads(model: str | Path, data: list[str], pairs: int, seed: int) -> Heads:
    """Every head's h_j for `pairs` random queries and earlier keys in one window of each of four documents.

    Raises DataError for a model whose family has no layer view (`ropewalk.model.view`), or a head rotated in part.
    """
    loaded = load_model(open_checkpoint(model), dtype="float32", device="cpu")
    view, rope = layer_view(loaded.model), loaded.checkpoint.rope
    window, inverse_F = rope.window.original, rope.frequencies().inverse_F
    if not isinstance(rope.scaling, Unscaled):
        raise DataError(
            f"{model} is scaled already: {rope.in_words()}.\n"
            "  The bounds are of the rotation and the window that a model was pretrained with.\n"
            "  Give the base checkpoint."
        )
    if view is None or view.head_dim != 2 * len(inverse_F):
        raise DataError(
            f"the heads of {model} cannot be read: its layers are not of a family known here, or rotate in part.\n"
            "  Llama, Mistral, Qwen 2 and 3, SmolLM 3 and OLMo 2 are known.\n"
            "  Give a --model of one of these."
        )
    selection = Selection(data=tuple(data), documents=DOCUMENTS, truncate_tokens=window)
    documents, _ = scored_documents(loaded.codec, selection, silent)
    found: dict[tuple[int, int], list[np.ndarray]] = {}
    distances = []
    random = np.random.default_rng(seed)
    for document in documents:
        tokens_BL = torch.tensor([document.tokens])
        queries = random.integers(1, len(document.tokens), pairs)
        keys = (random.random(pairs) * queries).astype(int)
        distances.append(queries - keys)
        states = loaded.model(tokens_BL, output_hidden_states=True, use_cache=False).hidden_states
        for depth, (layer, hidden) in enumerate(zip(view.body.layers, states, strict=False)):
            for head, h_NF in enumerate(heads_of(view, layer, hidden, queries, keys)):
                found.setdefault((depth, head), []).append(h_NF)
    joined = {place: np.concatenate(parts) for place, parts in found.items()}
    return Heads(joined, np.concatenate(distances), inverse_F, rope.theta, window)


def heads_of(view, layer, hidden, queries: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """(H, N, F): h_j of each head of a layer for these queries and keys of the first text; no rotation in it."""
    normed = view.normed(layer, hidden)
    q_HND = view.heads(layer, "q", normed)[0][:, queries].numpy().astype(np.float64)
    k_HND = view.heads(layer, "k", normed)[0][:, keys].numpy().astype(np.float64)
    k_HND = np.repeat(k_HND, len(q_HND) // len(k_HND), axis=0)  # heads of queries that share one of keys
    half = view.head_dim // 2  # transformers holds the two parts of a pair half a head apart
    q_HNF, k_HNF = (x[..., :half] + 1j * x[..., half:] for x in (q_HND, k_HND))
    return q_HNF * k_HNF.conj() / math.sqrt(view.head_dim)
