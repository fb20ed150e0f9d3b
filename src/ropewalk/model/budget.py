"""How many tokens one evaluation pass may hold: from the memory that is free, and what a token was seen to take."""

import os
import resource
import sys

import torch
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from ropewalk.errors import DataError
from ropewalk.launch import local_count

MOST = 16_384  # tokens of one pass; on two cores more gains nothing, and a GPU is filled by as many
LEAST = 256
SHARE = 0.5  # of the free memory: the rest is for keys, values, logits and others
PROBED = (256, 1024)  # tokens


def batch_tokens_for(model: PreTrainedModel, budget: int | None = None) -> int:
    """Tokens of one forward pass within `budget` bytes (None: half of what is free), a power of two."""
    device = next(model.parameters()).device
    sharing = 1 if device.type == "cuda" else local_count()
    allowed = budget if budget is not None else int(free_bytes(device) * SHARE) // sharing
    fitting = max(1, allowed // max(1, bytes_a_token(model, device)))
    if budget is not None and fitting < LEAST:
        raise DataError(
            f"a memory budget of {budget} bytes holds {fitting} tokens of one pass, and {LEAST} are the least.\n"
            f"  A token takes about {bytes_a_token(model, device)} bytes in this model.\n"
            "  Give a larger --memory-budget."
        )
    return int(min(MOST, max(LEAST, 2 ** (fitting.bit_length() - 1))))


def free_bytes(device: torch.device) -> int:
    """Memory that nobody uses now, on the device of the model."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable"))
    except (OSError, StopIteration):  # not Linux: all there is, of which SHARE is taken
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def peak_bytes(device: torch.device) -> int:
    """The most that was held so far: by tensors on a GPU; elsewhere by the whole process, resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))
    except (OSError, StopIteration):  # not Linux; Darwin counts bytes, the others KiB
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def bytes_a_token(model: PreTrainedModel, device: torch.device) -> int:
    """What one more token adds to a pass: measured on a GPU; elsewhere reckoned, for torch does not count there."""
    whole = not isinstance(next(model.parameters()), DTensor)  # a divided one is not called as a whole
    return _probed(model, device) if device.type == "cuda" and whole else reckoned_bytes_a_token(model)


def reckoned_bytes_a_token(model: PreTrainedModel) -> int:
    """The widest moment of a layer, which is its MLP (gate, up, their product) beside the residual stream."""
    config = model.config.get_text_config()
    width = getattr(config, "hidden_size", 4096)
    inner = getattr(config, "intermediate_size", None) or 4 * width
    inner = max(inner) if isinstance(inner, list | tuple) else inner
    return (8 * width + 4 * inner) * next(model.parameters()).element_size()


@torch.inference_mode()
def _probed(model: PreTrainedModel, device: torch.device) -> int:
    peaks = []
    for tokens in (PROBED[0], *PROBED):  # the first also makes the libraries' workspaces
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        model.base_model(torch.zeros(1, tokens, dtype=torch.long, device=device), use_cache=False)
        peaks.append(torch.cuda.max_memory_allocated(device) - before)
    return max(1, (peaks[2] - peaks[1]) // (PROBED[1] - PROBED[0]))
