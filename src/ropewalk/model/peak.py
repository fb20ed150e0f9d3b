"""How fast a device multiplies matrices at best, measured: what a run's own speed is held against.

A data sheet's figure would not do: it does not know a CPU that others use too, a GPU that is clocked down, or matrices
too small to fill either.
"""

import time

import torch

SECONDS = 0.2  # spent on it
ONE_PRODUCT = 0.01  # seconds that a product may take on the way to more rows
MOST_ROWS = 8_192


def matmul_peak(device: torch.device, dtype: torch.dtype, inner: int, outer: int, rows: int = MOST_ROWS) -> float:
    """FLOP a second of the best of some products (rows, inner) x (inner, outer) in `dtype`.

    Rows are at most `rows`, fewer on a device that is slow. No random number is drawn: a run's own stay what they were.
    """
    right = _filled(inner, outer, device, dtype)
    many, left = 64, _filled(64, inner, device, dtype)
    _seconds(left, right, 1)  # loads kernels
    while many < min(rows, MOST_ROWS) and _seconds(left, right, 1) < ONE_PRODUCT:
        many *= 2
        left = _filled(many, inner, device, dtype)
    repeats = max(1, int(ONE_PRODUCT / _seconds(left, right, 2)))  # a clock and a GPU's queue take time too
    ends, best = time.perf_counter() + SECONDS, float("inf")
    while best == float("inf") or time.perf_counter() < ends:
        best = min(best, _seconds(left, right, repeats))
    del left, right
    if device.type == "cuda":
        torch.cuda.empty_cache()  # the run was given what is free
    return 2 * many * inner * outer / best


def _filled(rows: int, columns: int, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """Numbers of all sizes and signs: a GPU multiplies zeros faster than a model's weights."""
    return torch.arange(rows * columns, device=device, dtype=torch.float32).sin().view(rows, columns).to(dtype)


@torch.inference_mode()
def _seconds(left: torch.Tensor, right: torch.Tensor, repeats: int) -> float:
    """Of one product, when so many follow each other."""
    _wait(left.device)
    began = time.perf_counter()
    for _ in range(repeats):
        left @ right
    _wait(left.device)
    return (time.perf_counter() - began) / repeats


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
