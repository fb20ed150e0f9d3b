"""What is done in a step, by name. The paper's recipe (arXiv 2306.15595, 3.1) is the default.

Of what the paper leaves open: gradients are clipped at norm 1; the learning rate stays constant after warm-up.
"""

from dataclasses import dataclass, replace

from ropewalk.errors import DataError
from ropewalk.names import unknown

SMALL = 100_000_000  # parameters below which a model is tuned with few sequences and a learning rate of its own
LARGE = 20_000_000_000  # the paper tunes 33B and 65B at half the rate of 7B and 13B


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """AdamW and its schedule. Rates are per step; `batch_tokens` is the global batch."""

    name: str
    steps: int
    length: int
    batch_tokens: int
    learning_rate: float
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.0
    warmup_steps: int = 20
    warmup_start: float = 0.1
    clip_norm: float = 1.0

    @property
    def sequences(self) -> int:
        return self.batch_tokens // self.length

    def rate(self, step: int) -> float:
        """The learning rate of step 0, 1, ...: linear from a tenth to the whole over the warm-up, then constant."""
        risen = min(1.0, step / self.warmup_steps)
        return self.learning_rate * (self.warmup_start + (1 - self.warmup_start) * risen)


def resolved_recipe(
    name: str,
    *,
    parameters: int,
    length: int,
    steps: int,
    learning_rate: float | None = None,
    batch_tokens: int | None = None,
) -> Recipe:
    """The recipe of that name for a model of this size. Raises DataError for values that make no batch."""
    if name not in RECIPES:
        raise DataError(unknown("recipe", name, RECIPES))
    if steps < 1:
        raise DataError(f"--steps is {steps}.\n  Give at least 1; the paper tunes for 1000.")
    if length < 2:
        raise DataError(f"--length is {length}.\n  A training sequence has at least 2 tokens.")
    if learning_rate is not None and not 0 < learning_rate < 1:
        raise DataError(f"--learning-rate is {learning_rate}.\n  Give a number between 0 and 1; the paper's is 2e-5.")
    sequences = 64 if parameters >= SMALL else 4
    batch = length * sequences if batch_tokens is None else batch_tokens
    if batch < length or batch % length:
        raise DataError(
            f"--batch-tokens is {batch}, which is not a whole number of sequences of {length} tokens.\n"
            f"  Every sequence of a batch has the training length.\n"
            f"  Give a multiple, such as {max(1, round(batch / length)) * length}."
        )
    rate = default_learning_rate(parameters) if learning_rate is None else learning_rate
    return replace(RECIPES[name], steps=steps, length=length, batch_tokens=batch, learning_rate=rate)


def default_learning_rate(parameters: int) -> float:
    """The paper's by size: 2e-5, or 1e-5 from 33B. Below 100 M, 5e-4: see docs/results.md for what the pilot bears."""
    if parameters < SMALL:
        return 5e-4
    return 2e-5 if parameters < LARGE else 1e-5


RECIPES = {"paper": Recipe(name="paper", steps=1000, length=0, batch_tokens=0, learning_rate=2e-5)}
