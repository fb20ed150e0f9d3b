"""A check, at every load, that the model rotates as its folder says."""

from collections.abc import Iterator

import numpy as np
import torch

from ropewalk.errors import CheckpointError
from ropewalk.rope.spec import RopeSpec

# transformers computes frequencies in float32, where a power is good to about 3e-6 of its value
TOLERANCE = 1e-5


def rotary_modules(model: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Module]]:
    """The modules that hold the frequencies, each with its name."""
    for name, module in model.named_modules():
        if isinstance(getattr(module, "inv_freq", None), torch.Tensor):
            yield name, module


def assert_rotates(model: torch.nn.Module, rope: RopeSpec, folder: str) -> None:
    """Raises CheckpointError unless every rotary module turns as `rope` says, in float32.

    Editing a config after loading, an older schema, or a cast of the whole model to bfloat16 all leave a model that
    runs and rotates differently; nothing but the loaded buffers shows it.
    """
    wanted = rope.frequencies()
    modules = list(rotary_modules(model))
    if not modules:
        raise CheckpointError(
            f"the model loaded from {folder} holds no rotary frequencies, although its config says {rope.in_words()}.\n"
            "  Expected a buffer inv_freq, as transformers' RoPE models have.\n"
            "  This architecture is not supported."
        )
    for name, module in modules:
        loaded_F: torch.Tensor = module.inv_freq  # type: ignore[attr-defined]
        scale = float(getattr(module, "attention_scaling", 1.0))
        problem = _problem(loaded_F, scale, wanted.inverse_F, wanted.attention_factor)
        if problem:
            raise CheckpointError(
                f"the model loaded from {folder} does not rotate as its config says: {name} {problem}.\n"
                f"  config.json says {rope.in_words()}.\n"
                "  Both schemas in config.json must agree; `ropewalk extend` writes them so."
            )


def _problem(loaded_F: torch.Tensor, scale: float, wanted_F: np.ndarray, factor: float) -> str | None:
    if loaded_F.dtype != torch.float32:
        return f"holds its frequencies in {loaded_F.dtype}, too coarse for long windows"
    if loaded_F.shape != wanted_F.shape:
        return f"has {loaded_F.numel()} pairs, not {wanted_F.size}"
    away = np.abs(loaded_F.cpu().double().numpy() / wanted_F - 1)
    if away.max() > TOLERANCE:
        return f"is off by {away.max():.2%} at pair {int(away.argmax())}"
    if abs(scale - factor) > TOLERANCE:
        return f"scales attention by {scale:.6g}, not {factor:.6g}"
    return None
