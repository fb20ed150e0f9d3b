"""llama.cpp's graph of the llama, qwen2 and qwen3 architectures in float64 numpy, fed by nothing but a GGUF file.

Written from llama.cpp's source (ggml's rope_yarn, build_ffn, build_attn), apart from the code that exports.
Shape letters: L = length, H = heads, D = head dim, E = hidden, F = pairs, V = vocabulary.
"""

from pathlib import Path

import gguf
import numpy as np


class Graph:
    def __init__(self, path: Path):
        reader = gguf.GGUFReader(path)
        self.keys = {key: field.contents() for key, field in reader.fields.items()}
        self.arch = self.keys["general.architecture"]
        self.tensors = {t.name: _wide(t) for t in reader.tensors}

    def key(self, name: str, default=None):
        return self.keys.get(f"{self.arch}.{name}", default)

    def logits(self, ids: list[int]) -> np.ndarray:
        x_LE = self.tensors["token_embd.weight"][ids]
        for layer in range(self.key("block_count")):
            part = f"blk.{layer}."
            x_LE = x_LE + self._attention(self._norm(x_LE, part + "attn_norm"), part)
            h_LE = self._norm(x_LE, part + "ffn_norm")
            gate = self._linear(h_LE, part + "ffn_gate")
            x_LE = x_LE + self._linear(
                gate / (1 + np.exp(-gate)) * self._linear(h_LE, part + "ffn_up"), part + "ffn_down"
            )
        head = self.tensors.get("output.weight", self.tensors["token_embd.weight"])
        return self._norm(x_LE, "output_norm") @ head.T

    def _attention(self, x_LE: np.ndarray, part: str) -> np.ndarray:
        length, heads, head_dim = len(x_LE), self.key("attention.head_count"), self.key("attention.key_length")
        kv_heads = self.key("attention.head_count_kv")
        q = self._linear(x_LE, part + "attn_q").reshape(length, heads, head_dim)
        k = self._linear(x_LE, part + "attn_k").reshape(length, kv_heads, head_dim)
        v = self._linear(x_LE, part + "attn_v").reshape(length, kv_heads, head_dim)
        if part + "attn_q_norm.weight" in self.tensors:
            q, k = self._norm(q, part + "attn_q_norm"), self._norm(k, part + "attn_k_norm")
        q, k = self._rope(q), self._rope(k)
        k, v = (np.repeat(t, heads // kv_heads, axis=1) for t in (k, v))
        scores_HLL = np.einsum("lhd,mhd->hlm", q, k) / np.sqrt(head_dim)
        scores_HLL = np.where(np.tri(length, dtype=bool), scores_HLL, -np.inf)
        weights = np.exp(scores_HLL - scores_HLL.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        return self._linear(np.einsum("hlm,mhd->lhd", weights, v).reshape(length, -1), part + "attn_output")

    def _rope(self, x_LHD: np.ndarray) -> np.ndarray:
        n_dims, base = self.key("rope.dimension_count"), self.key("rope.freq_base")
        pair = np.arange(n_dims // 2)
        extrapolated = np.arange(len(x_LHD))[:, None] * base ** (-2.0 * pair / n_dims)
        if self.arch == "llama":  # the only one of the three whose graph hands rope_freqs on
            extrapolated = extrapolated / self.tensors.get("rope_freqs.weight", 1.0)
        scale = 1.0 / self.key("rope.scaling.factor", 1.0)
        angle, magnitude = scale * extrapolated, self.key("rope.scaling.attn_factor", 1.0)
        if self.key("rope.scaling.type") == "yarn":
            original = self.key("rope.scaling.original_context_length")
            start, end = (n_dims * np.log(original / (beta * 2 * np.pi)) / (2 * np.log(base)) for beta in (32.0, 1.0))
            start, end = max(0, np.floor(start)), min(n_dims - 1, np.ceil(end))
            mix = 1 - np.clip((pair - start) / max(0.001, end - start), 0, 1)
            angle = angle * (1 - mix) + extrapolated * mix
            magnitude *= 1 + 0.1 * np.log(1 / scale)
        cos, sin = (magnitude * f(angle)[:, None, :] for f in (np.cos, np.sin))
        if self.arch == "llama":  # neighbours
            one, other = x_LHD[..., 0::2], x_LHD[..., 1::2]
            return np.stack([one * cos - other * sin, one * sin + other * cos], -1).reshape(x_LHD.shape)
        one, other = np.split(x_LHD, 2, axis=-1)  # halves
        return np.concatenate([one * cos - other * sin, one * sin + other * cos], -1)

    def _linear(self, x: np.ndarray, name: str) -> np.ndarray:
        return x @ self.tensors[name + ".weight"].T + self.tensors.get(name + ".bias", 0.0)

    def _norm(self, x: np.ndarray, name: str) -> np.ndarray:
        mean = (x**2).mean(-1, keepdims=True)
        return x / np.sqrt(mean + self.key("attention.layer_norm_rms_epsilon")) * self.tensors[name + ".weight"]


def _wide(tensor: gguf.ReaderTensor) -> np.ndarray:
    shape = [int(side) for side in reversed(tensor.shape)]
    return gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float64).reshape(shape)
