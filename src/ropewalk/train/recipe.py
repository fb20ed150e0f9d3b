"""What is done in a step, by name. The paper's recipe (arXiv 2306.15595, 3.1) is the default.

    paper       rows of the whole window, 1,000 steps
    direct      the same for a checkpoint whose rotation was not rescaled: the paper's baseline, 10,000 steps
    pose        rows of the original window, whose positions skip over the longer one (PoSE, arXiv 2309.10400)
    mixed       half of the rows read as pieces of the original window, so that it stays (after LongRoPE2, arXiv 2502.20082)
    summaries   reports and their summaries, ten times over (the paper's 3.5)

Of what the paper leaves open: gradients are clipped at norm 1; the learning rate stays constant after warm-up; the rate
and the batch of summaries are those of tuning.
"""

import math
from dataclasses import dataclass, field, replace

from ropewalk.errors import DataError
from ropewalk.given import require_steps
from ropewalk.names import unknown
from ropewalk.rope.spec import Window

SMALL = 100_000_000  # parameters below which a model is tuned with few sequences and a learning rate of its own
LARGE = 20_000_000_000  # the paper tunes 33B and 65B at half the rate of 7B and 13B
PACKINGS = ("concatenated", "documents")
SUMMARY_WINDOW = (
    16_384  # the paper's for summaries: 15,000 tokens of a report, 1,000 of its summary, the prompt's frame
)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """AdamW and its schedule, and how rows are made of texts. Rates are per step; `batch_tokens` is the global batch.

    `window` is what the checkpoint had when it was pretrained, and what it has now. `packing` is how documents share a
    row (see `rows.TokenRows`). With more than one of `chunks` a row's positions skip between them, up to the window's
    end. `mixed` is the share of rows that are read as pieces of the original window. `epochs` gives the steps where
    they are not given.
    """

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
    window: Window = field(default_factory=lambda: Window(1, 1))
    packing: str = PACKINGS[0]
    chunks: int = 1
    mixed: float = 0.0
    epochs: int | None = None

    @property
    def sequences(self) -> int:
        return self.batch_tokens // self.length

    @property
    def reach(self) -> int:
        """The positions that tuning covers: those of a row, or all of the window where positions skip."""
        return self.window.target if self.chunks > 1 else self.length

    def rate(self, step: int) -> float:
        """The learning rate of step 0, 1, ...: linear from a tenth to the whole over the warm-up, then constant."""
        risen = min(1.0, step / self.warmup_steps)
        return self.learning_rate * (self.warmup_start + (1 - self.warmup_start) * risen)


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(name="paper", steps=1000, length=0, batch_tokens=0, learning_rate=2e-5),
        Recipe(name="direct", steps=10_000, length=0, batch_tokens=0, learning_rate=2e-5),
        Recipe(name="pose", steps=1000, length=0, batch_tokens=0, learning_rate=2e-5, warmup_steps=10, chunks=2),
        Recipe(name="mixed", steps=1000, length=0, batch_tokens=0, learning_rate=2e-5, mixed=0.5),
        Recipe(name="summaries", steps=0, length=0, batch_tokens=0, learning_rate=2e-5, epochs=10),
    )
}


def resolved_recipe(
    name: str,
    *,
    parameters: int,
    length: int | None = None,
    steps: int | None = None,
    learning_rate: float | None = None,
    batch_tokens: int | None = None,
    window: Window | None = None,
    packing: str = PACKINGS[0],
    pairs: int | None = None,
) -> Recipe:
    """The recipe of that name for a model of this size and window. Raises DataError for values that make no batch.

    `window` None: nothing but `length` is known of the model. `pairs` are the reports there are, of which an epoch is
    made; a recipe of epochs without them, and without `steps`, has one step.
    """
    if name not in RECIPES:
        raise DataError(unknown("recipe", name, RECIPES))
    if packing not in PACKINGS:
        raise DataError(unknown("packing", packing, PACKINGS))
    recipe = RECIPES[name]
    if steps is not None:
        require_steps(steps)
    if length is not None and length < 2:
        raise DataError(f"--length is {length}.\n  A training sequence has at least 2 tokens.")
    window = window or Window(length or 2, length or 2)
    length = length or default_length(recipe, window)
    if learning_rate is not None and not 0 < learning_rate < 1:
        raise DataError(f"--learning-rate is {learning_rate}.\n  Give a number between 0 and 1; the paper's is 2e-5.")
    batch = _batch(parameters, length, batch_tokens)
    if steps is None:
        steps = recipe.steps or math.ceil((recipe.epochs or 1) * (pairs or 1) / (batch // length))
    rate = default_learning_rate(parameters) if learning_rate is None else learning_rate
    chosen = replace(
        recipe, steps=steps, length=length, batch_tokens=batch, learning_rate=rate, window=window, packing=packing
    )
    _require_effect(chosen)
    return chosen


def default_length(recipe: Recipe, window: Window) -> int:
    """The training length where none is given: the window, or what the recipe trains on in its place."""
    if recipe.chunks > 1:
        return window.original
    return min(window.target, SUMMARY_WINDOW) if recipe.epochs else window.target


def _batch(parameters: int, length: int, batch_tokens: int | None) -> int:
    batch = length * (64 if parameters >= SMALL else 4) if batch_tokens is None else batch_tokens
    if batch < length or batch % length:
        raise DataError(
            f"--batch-tokens is {batch}, which is not a whole number of sequences of {length} tokens.\n"
            f"  Every sequence of a batch has the training length.\n"
            f"  Give a multiple, such as {max(1, round(batch / length)) * length}."
        )
    return batch


def _require_effect(recipe: Recipe) -> None:
    """Raises DataError where the recipe would be another one, under its name."""
    window, length = recipe.window, recipe.length
    if recipe.chunks > 1 and length >= window.target:
        raise DataError(
            f"the recipe {recipe.name} has no positions to skip: its rows of {length} tokens fill the window of "
            f"{window.target}.\n"
            "  It trains on short rows whose positions reach over a longer window.\n"
            f"  Extend the checkpoint first, or give a --length below {window.target}, or take --recipe paper."
        )
    if recipe.chunks > length:
        raise DataError(f"a row of {length} tokens makes no {recipe.chunks} chunks.\n  Give a longer --length.")
    if recipe.mixed and (length % window.original or length == window.original):
        raise DataError(
            f"rows of {length} tokens are not made of several windows of {window.original}, the original one.\n"
            f"  The recipe {recipe.name} reads some of its rows as pieces of that window, to keep it alive.\n"
            f"  Give --length a multiple of it, such as {max(2, length // window.original) * window.original}, "
            "or take --recipe paper."
        )
    if recipe.epochs and recipe.packing != PACKINGS[0]:
        raise DataError(
            f"--packing {recipe.packing} has no effect with --recipe {recipe.name}.\n"
            "  Each of its rows is one report with its summary.\n"
            "  Leave it out."
        )


def default_learning_rate(parameters: int) -> float:
    """The paper's by size: 2e-5, or 1e-5 from 33B. Below 100 M, 1e-3: see docs/results.md for what the pilot bears."""
    if parameters < SMALL:
        return 1e-3
    return 2e-5 if parameters < LARGE else 1e-5
