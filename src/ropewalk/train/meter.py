"""What a step tells of the machine it ran on, and when the run will end. Nothing here decides a number of the run."""

import statistics

import torch

from ropewalk.errors import CheckpointError
from ropewalk.model.budget import peak_bytes
from ropewalk.model.peak import matmul_peak
from ropewalk.planning.forecast import CALIBRATION_STEPS
from ropewalk.planning.shapes import Shape, shape_of
from ropewalk.planning.work import model_flops
from ropewalk.train.recipe import Recipe

GIB = 2**30


class Meter:
    """Figures of one start of a run, which goes on after `done` steps.

    `shape` None: a model of which it is not known what a step computes. `devices` like this one share a step.
    """

    def __init__(
        self, shape: Shape | None, recipe: Recipe, adapter: str, device: torch.device, compute: torch.dtype, done: int,
        devices: int = 1,
    ):  # fmt: skip
        self._recipe, self._device, self._done = recipe, device, done
        self._seconds: list[float] = []
        self._at_best: float | None = None  # seconds of a step of nothing but the fastest products
        if shape is not None:
            peak = matmul_peak(device, compute, shape.hidden, shape.inner, recipe.batch_tokens)
            self._at_best = recipe.sequences * model_flops(shape, recipe.length, adapter) / devices / peak

    def figures(self, seconds: float) -> dict[str, float]:
        """Of a step that took so long: the most memory held so far, and the share of the device's measured peak."""
        self._seconds.append(seconds)
        found = {"memory_gib": round(peak_bytes(self._device) / GIB, 3)}
        if self._at_best is not None:
            found["of_peak"] = round(self._at_best / seconds, 4)
        return found

    def estimate(self) -> str | None:
        """In words how long the run will take, once, after the first steps of this start; by their median."""
        if len(self._seconds) != CALIBRATION_STEPS:
            return None
        left = self._recipe.steps - self._done - CALIBRATION_STEPS
        if left <= 0:
            return None
        each = statistics.median(self._seconds)
        if self._done:
            return f"after {CALIBRATION_STEPS} more steps: about {_duration(each * left)} for the {left} that are left"
        return (
            f"after {CALIBRATION_STEPS} steps: about {_duration(each * self._recipe.steps)} in all, saves not counted"
        )


def known_shape(config: dict[str, object]) -> Shape | None:
    """The sides of a model of a family whose work is known from its config; None for others, such as experts."""
    try:
        return shape_of(config)
    except CheckpointError:
        return None


def shown(entry: dict[str, float]) -> dict[str, str]:
    """What of a step stands beside the progress bar."""
    said = {key: f"{entry[key]:.3g}" for key in ("loss", "tokens_per_second")}
    said["memory"] = f"{entry['memory_gib']:.3g} GiB"
    if "of_peak" in entry:
        said["of_peak"] = f"{entry['of_peak']:.0%}"
    return said


def _duration(seconds: float) -> str:
    """
    >>> [_duration(seconds) for seconds in (7.2, 600, 9000, 400_000)]
    ['7 s', '10 min', '2.5 h', '4.6 days']
    """
    for size, unit in ((86_400, "days"), (3600, "h")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"
