"""A check, at every load, that the model rotates as its folder says."""

from collections.abc import Iterator

import numpy as np
import torch

from ropewalk.checkpoint.position_table import LearnedTable
from ropewalk.errors import CheckpointError
from ropewalk.rope.frequencies import base_frequencies
from ropewalk.rope.scalings import LongRope
from ropewalk.rope.spec import RopeSpec

# transformers computes frequencies in float32, where a power is good to about 3e-6 of its value
TOLERANCE = 1e-5


# Towers for pictures and sound rotate by themselves; their windows are not the text's
_OTHER_TOWERS = ("vision", "visual", "audio", "depth_decoder")


def rotary_buffers(model: torch.nn.Module) -> Iterator[tuple[str, str | None, torch.Tensor, float]]:
    """Name, kind of layer (None: all), frequencies and attention factor of each rotary buffer of the language model."""
    for name, module in model.named_modules():
        if any(tower in name for tower in _OTHER_TOWERS):
            continue
        for buffer, frequencies_F in module.named_buffers(recurse=False):
            if buffer.endswith("inv_freq") and "original_" not in buffer:
                kind = buffer.removesuffix("inv_freq").removesuffix("_") or None
                prefix = f"{kind}_" if kind else ""
                factor = getattr(module, f"{prefix}attention_scaling", 1.0)
                yield f"{name}.{buffer}", kind, frequencies_F, float(factor)


def assert_rotates(model: torch.nn.Module, ropes: dict[str, RopeSpec], folder: str) -> None:
    """Raises CheckpointError unless every rotary buffer turns as the `ropes` of its kind of layer say, in float32.

    Editing a config after loading, an older schema, or a cast of the whole model to bfloat16 all leave a model that
    runs and rotates differently; nothing but the loaded buffers shows it.
    """
    buffers = list(rotary_buffers(model))
    if not buffers:
        raise CheckpointError(
            f"the model loaded from {folder} holds no rotary frequencies, although its config says "
            f"{ropes['full_attention'].in_words()}.\n"
            "  Expected a buffer inv_freq, as transformers' RoPE models have.\n"
            "  This architecture is not supported."
        )
    for name, kind, loaded_F, factor in buffers:
        rope = ropes.get(kind or "full_attention")
        if rope is None:
            continue
        problem = _problem(loaded_F, factor, _at_load(rope), rope.frequencies().attention_factor)
        if problem:
            raise CheckpointError(
                f"the model loaded from {folder} does not rotate as its config says: {name} {problem}.\n"
                f"  config.json says {rope.in_words()}.\n"
                "  Both schemas in config.json must agree; `ropewalk check --fix` writes them so."
            )


def assert_has_table(model: torch.nn.Module, table: LearnedTable, folder: str) -> None:
    """Raises CheckpointError unless the model's table of positions has a row for each token of its window."""
    wanted = table.window.target + table.kind.offset
    names = [name for name, _ in model.named_parameters() if name.endswith(table.kind.tensor)]
    rows = [len(model.get_parameter(name)) for name in names]
    if rows != [wanted]:
        raise CheckpointError(
            f"the model loaded from {folder} has a table of {', '.join(map(str, rows)) or 'no'} positions.\n"
            f"  config.json says {table.window.target}, so {wanted} rows of {table.kind.tensor} were expected.\n"
            "  Fetch the checkpoint again."
        )


def _at_load(rope: RopeSpec) -> np.ndarray:
    """The frequencies before any token: of longrope the set for the original window, whatever comes later."""
    if isinstance(rope.scaling, LongRope):
        return base_frequencies(rope.theta, rope.rotary_dim) / np.asarray(rope.scaling.short_factor)
    return rope.frequencies().inverse_F


def _problem(loaded_F: torch.Tensor, scale: float, wanted_F: np.ndarray, factor: float) -> str | None:
    if loaded_F.dtype != torch.float32:
        return f"holds its frequencies in {loaded_F.dtype}, too coarse for long windows"
    if loaded_F.shape != wanted_F.shape:
        return f"has {loaded_F.numel()} pairs, not {wanted_F.size}"
    away = np.abs(loaded_F.cpu().double().numpy() / wanted_F - 1)
    if not away.max() <= TOLERANCE:  # NaN is not, either
        return f"is off by {away.max():.2%} at pair {int(away.argmax())}"
    if not abs(scale - factor) <= TOLERANCE:
        return f"scales attention by {scale:.6g}, not {factor:.6g}"
    return None
