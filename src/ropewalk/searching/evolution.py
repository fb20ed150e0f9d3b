"""Evolution over divisors that never fall from the fastest pair to the slowest (LongRoPE, arXiv 2402.13753, algorithm 1).

Candidates are the arms that are known (PI, NTK, YaRN) and children of the best: mutated, or crossed from two of them. Which
comes next follows from the seed and from the losses so far, and from nothing else; so a run that stopped goes on by being
told its losses again.

Differs from LongRoPE: the attention factor is searched too, where the paper has it fixed; a child that would break the order
is put in order, where the paper throws it away; a mutation moves a divisor by a factor, where the paper draws a new one. Not
done: leaving the first tokens unscaled, which no config.json can say.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

POPULATION = 64  # LongRoPE's, where the budget bears it
KEPT = 4  # a quarter are parents ...
MUTATION = 0.3  # ... and each number of a child moves with this chance
SPREAD = 0.25  # by a factor of about so much
BEYOND = 1.25  # no divisor is above the stretch times this
STEP = 0.01  # divisors are multiples of it
MOST_TEMPERATURE = 1.6


@dataclass(frozen=True)
class Candidate:
    """One divisor a pair, the fastest first, and what multiplies cos and sin."""

    factors: tuple[float, ...]
    attention_factor: float

    @property
    def name(self) -> str:
        """The same for the same numbers."""
        return " ".join(f"{number:.4f}" for number in (*self.factors, self.attention_factor))


@dataclass(frozen=True)
class Space:
    """What a candidate may be, and those that evolution begins with."""

    stretch: float
    known: tuple[Candidate, ...]

    def settled(self, factors: np.ndarray, attention_factor: float) -> Candidate:
        """The nearest candidate of the space: in bounds, in order, in steps."""
        bounded = np.clip(np.sort(factors), 1.0, BEYOND * self.stretch)
        in_steps = np.round(np.round(bounded / STEP) * STEP, 4)
        temperature = round(float(np.clip(attention_factor, 1.0, MOST_TEMPERATURE)), 4)
        return Candidate(tuple(in_steps.tolist()), temperature)

    def starts(self) -> list[Candidate]:
        """The known ones as the space has them; two of them may be the same there."""
        return [self.settled(np.array(one.factors), one.attention_factor) for one in self.known]


class Evolution:
    """Proposes candidates one after the other; `tell` it the loss of each before the next is asked for."""

    def __init__(self, space: Space, budget: int, seed: int):
        self.space, self.budget = space, budget
        self.population = int(np.clip(budget // 10, len(space.known) + 1, POPULATION))
        self.random = np.random.default_rng(seed)
        self.losses: dict[Candidate, float] = {}

    def candidates(self) -> Iterator[Candidate]:
        """As many new candidates as the budget has."""
        waiting = self.space.starts()
        while len(self.losses) < self.budget:
            candidate = waiting.pop(0) if waiting else self._child()
            if candidate not in self.losses:
                yield candidate

    def tell(self, candidate: Candidate, loss: float) -> None:
        self.losses[candidate] = loss

    def best(self, count: int = 1) -> list[Candidate]:
        """The best so far; of equal ones the earlier."""
        return sorted(self.losses, key=lambda candidate: self.losses[candidate])[:count]

    def _child(self) -> Candidate:
        """Of the known ones until there is a population; then of its best, by mutation as often as by crossing."""
        parents = self.best(max(2, self.population // KEPT))
        first = parents[int(self.random.integers(len(parents)))]
        if len(self.losses) < self.population or self.random.random() < 0.5:
            return self._mutated(first)
        return self._crossed(first, parents[int(self.random.integers(len(parents)))])

    def _mutated(self, parent: Candidate) -> Candidate:
        numbers = np.array([*parent.factors, parent.attention_factor])
        moved = self.random.random(len(numbers)) < MUTATION
        moved[self.random.integers(len(numbers))] = True
        scale = np.full(len(numbers), SPREAD)
        scale[-1] = SPREAD / 5  # the logits move by its square, all of them at once
        numbers = np.where(moved, numbers * np.exp(self.random.normal(0, scale)), numbers)
        return self.space.settled(numbers[:-1], float(numbers[-1]))

    def _crossed(self, first: Candidate, second: Candidate) -> Candidate:
        one, other = (np.array([*parent.factors, parent.attention_factor]) for parent in (first, second))
        numbers = np.where(self.random.random(len(one)) < 0.5, one, other)
        return self.space.settled(numbers[:-1], float(numbers[-1]))


def divisors(inverse_F: np.ndarray, base_F: np.ndarray) -> tuple[float, ...]:
    """What a rotation divides each pair of the base by."""
    return tuple((base_F / inverse_F).tolist())


def falls(losses: Sequence[float]) -> list[float]:
    """The least loss after each candidate."""
    return np.minimum.accumulate(losses).tolist() if losses else []
