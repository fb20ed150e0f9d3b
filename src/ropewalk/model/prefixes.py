"""In which order prompts are best scored when they begin alike: every shared stretch of tokens goes through once.

Prompts form a tree (a trie over tokens). It is walked depth first with one buffer of keys and values: `Keep` puts a
stretch behind what the buffer holds, `Score` runs the rest of some prompts after it, none of it kept. Branches of one
shape are walked side by side, each in a lane of the buffer: ten passkeys behind one task line, cut at the same places,
are ten lanes, and each step is one pass of ten short texts instead of ten passes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

SHORTEST = 16  # tokens: attention over a shorter stretch apart costs more than reading it again
WORTH = 128  # tokens saved: below, a pass of its own costs more, and prompts are better read side by side


@dataclass(frozen=True)
class Keep:
    """Crop the buffer to `start` tokens, then put tokens start .. end - 1 of these prompts behind them, each in a lane.

    Where there are more lanes than before, what the first holds is copied to the others.
    """

    prompts: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True)
class Score:
    """Crop the buffer to `start` tokens, then score these prompts: for each lane those that begin with what it holds.

    Lanes have equally many prompts, of equal lengths in the same order.
    """

    lanes: tuple[tuple[int, ...], ...]
    start: int


def shared_length(one: Sequence[int], other: Sequence[int], known: int = 0) -> int:
    """How many tokens two texts have in common at the beginning; `known` of them are known to be."""
    length, end = known, min(len(one), len(other))
    step = 64
    while length < end and one[length : length + step] == other[length : length + step]:
        length = min(length + step, end)
    while length < end and one[length] == other[length]:
        length += 1
    return length


def walk(
    prompts: Sequence[list[int]], shareable: Sequence[int], *, worth: int = WORTH, lanes: int = 1
) -> Iterator[Keep | Score]:
    """The steps that score every prompt once. At most `shareable[i]` tokens of prompt i may be shared.

    A stretch is shared where that saves at least `worth` tokens; at most `lanes` branches are walked side by side.
    """
    order = sorted(range(len(prompts)), key=lambda i: prompts[i])
    common = [0] * len(order)  # common[j]: tokens that order[j - 1] and order[j] share
    for j in range(1, len(order)):
        one, other = order[j - 1], order[j]
        most = min(shareable[one], shareable[other])
        common[j] = min(most, shared_length(prompts[one], prompts[other]))
    lengths = [len(prompts[i]) for i in order]
    pending = [_Run((0,), len(order), 0, 0)]
    while pending:
        run = pending.pop()
        first, depth = run.firsts[0], run.depth
        if depth > run.held:
            yield Keep(tuple(order[start] for start in run.firsts), run.held, depth)
        branches = list(_branches(common, first, first + run.size, depth, worth))
        alone = [start - first for start, end, _ in branches if end - start == 1]
        if alone:
            yield Score(tuple(tuple(order[start + place] for place in alone) for start in run.firsts), depth)
        deeper = [branch for branch in branches if branch[1] - branch[0] > 1]
        if len(run.firsts) > 1:
            beside = [tuple(start + branch[0] - first for start in run.firsts) for branch in deeper]
        else:
            beside = _alike(deeper, common, lengths, lanes)
        shapes = {start: (end - start, shared) for start, end, shared in deeper}
        for firsts in reversed(beside):
            size, shared = shapes[firsts[0]]
            pending.append(_Run(firsts, size, depth, shared))


@dataclass(frozen=True)
class _Run:
    """Branches of one shape, each `size` sorted prompts from one of `firsts` on, walked side by side."""

    firsts: tuple[int, ...]
    size: int
    held: int  # tokens the buffer holds
    depth: int  # tokens it should hold


def _alike(
    branches: Sequence[tuple[int, int, int]], common: Sequence[int], lengths: Sequence[int], lanes: int
) -> list[tuple[int, ...]]:
    """Where branches begin, those of one shape together, at most `lanes` of them and as evenly as can be."""
    shapes: dict[tuple[object, ...], list[int]] = {}
    for start, end, shared in branches:
        shape = (shared, tuple(common[start + 1 : end]), tuple(lengths[start:end]))
        shapes.setdefault(shape, []).append(start)
    together: list[tuple[int, ...]] = []
    for starts in shapes.values():
        rounds = -(-len(starts) // max(1, lanes))
        at_once = -(-len(starts) // rounds)
        together += [tuple(starts[k : k + at_once]) for k in range(0, len(starts), at_once)]
    return together


def _branches(common: Sequence[int], first: int, stop: int, depth: int, worth: int) -> Iterator[tuple[int, int, int]]:
    """Runs of neighbours that are worth a stretch of their own behind `depth` tokens, and its end; others one by one."""
    pending = [(first, stop)]
    while pending:
        start, end = pending.pop()
        if end - start == 1:
            yield start, end, depth
            continue
        shared = min(common[start + 1 : end])
        if shared - depth >= SHORTEST and (shared - depth) * (end - start - 1) >= worth:
            yield start, end, shared
            continue
        cuts = [start, *(j for j in range(start + 1, end) if common[j] == shared), end]
        pending += reversed(list(pairwise(cuts)))


def deepest(steps: Sequence[Keep | Score]) -> int:
    """Tokens that the buffer must be able to hold."""
    return max((step.end for step in steps if isinstance(step, Keep)), default=0)


def widest(steps: Sequence[Keep | Score]) -> int:
    """Lanes that the buffer must have."""
    return max((len(step.prompts) for step in steps if isinstance(step, Keep)), default=1)
