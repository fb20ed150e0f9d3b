"""Perplexity by the sliding window protocol of the paper (arXiv 2306.15595, 3.2), after Press et al. (ALiBi).

A window of L tokens, targets included, slides over each document by the stride S. The first window scores all of its
tokens but the first; each later one, the tail included, scores its new tokens only, so every token counts once, under
up to L - 1 tokens of context. For windows below the stride, the stride is the window. Where windows do not overlap, the
first token of each has no context and is not scored. Documents are never joined, and
the mean is over tokens: not over windows, which would let a first window of L tokens weigh as much as a later one of S.

Every token's loss is kept (`losses.py`); this and every other definition (`windows.py`) is a sum over them.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ropewalk.errors import DataError
from ropewalk.evals.documents import ScoredDocument
from ropewalk.evals.losses import LossTable, found
from ropewalk.evals.windows import DEFINITIONS, Need, WindowPass, sampled, window_passes
from ropewalk.model.scoring import Scorer
from ropewalk.progress import Progress
from ropewalk.record import EvalResult

NAME = "perplexity"
POSITIONS_FROM = 32  # tokens: below, losses by position change from token to token
BUCKETS_AN_OCTAVE = 2

Windows = dict[int, dict[int, dict[range, np.ndarray]]]  # document -> begin -> losses by targets


@dataclass(frozen=True, kw_only=True)
class PerplexityPlan:
    """What is computed: window lengths, the stride, further definitions, and whether by a sample of the windows."""

    lengths: tuple[int, ...]
    stride: int
    also: tuple[str, ...] = ()
    windows_sampled: int | None = None
    seed: int = 0

    def needs(self, totals: Sequence[int]) -> list[Need]:
        names = ("sliding", *self.also)
        needs = [Need(DEFINITIONS[name], length, self.stride) for name in names for length in sorted(self.lengths)]
        if self.windows_sampled is None:
            return needs
        return [sampled(need, totals, self.windows_sampled, self.seed) for need in needs]


def measured_perplexity(
    scorer: Scorer,
    documents: Sequence[ScoredDocument],
    plan: PerplexityPlan,
    table: LossTable,
    model_window: int,
    progress: Progress,
) -> list[EvalResult]:
    """A row a definition and window length, then the loss by position."""
    totals = [len(document.tokens) for document in documents]
    needs = plan.needs(totals)
    groups = [needs] if scorer.is_static else [[n for n in needs if n.length == length] for length in plan.lengths]
    results: list[EvalResult] = []
    work = [
        (f"{NAME}/{'-'.join(str(n) for n in sorted({n.length for n in group}))}/{number}/{window_pass.begins[0]}/{window_pass.size}",
         number, window_pass, group)
        for group in groups
        for number, total in enumerate(totals)
        for window_pass in window_passes(number, total, group, scorer.batch_tokens)
    ]  # fmt: skip
    sizes = {name: p.size * len(p.begins) for name, _, p, _ in work}
    todo = table.todo([name for name, *_ in work])
    done = sum(size for name, size in sizes.items() if name not in todo)
    with progress.bar("perplexity, tokens read", sum(sizes.values()), done=done) as bar:
        for name, number, window_pass, _ in work:
            if name in todo:
                table.add(name, window_pass, pass_losses(scorer, documents[number].tokens, window_pass))
                bar.advance(sizes[name])
    table.meet()
    windows: Windows = {}
    for group in groups:
        windows = {}
        for name, number, _, owner in work:
            if owner is group:
                windows.setdefault(number, {}).update(table.windows(name))
        results += [reduced(need, windows, totals, model_window) for need in group]
    if scorer.is_static and plan.windows_sampled is None:
        results += losses_by_position(max(plan.lengths), windows, totals, model_window)
    return results


def pass_losses(scorer: Scorer, tokens: Sequence[int], window_pass: WindowPass) -> np.ndarray:
    """The targets' losses of each window of a pass, (B, R)."""
    windows = [tokens[begin : begin + window_pass.size] for begin in window_pass.begins]
    return scorer.target_losses(windows, window_pass.targets).numpy()


def reduced(need: Need, windows: Windows, totals: Sequence[int], model_window: int) -> EvalResult:
    """The row of one definition at one window length."""
    parts = [
        {begin: _window_sum(need, number, begin, total, windows) for begin in need.begins(number, total)}
        for number, total in enumerate(totals)
    ]
    if need.sample is not None:
        return _sampled_result(need, [parts[number][begin] for number, begin in need.sample], totals, model_window)
    if need.definition.by_window:
        sums = [(math.fsum(loss / count for loss, count in p.values()), len(p)) for p in parts]
    else:
        sums = [(math.fsum(loss for loss, _ in p.values()), sum(c for _, c in p.values())) for p in parts]
    counted = sum(count for p in parts for _, count in p.values())
    return perplexity_result(need, sums, totals, model_window, counted)


def _window_sum(need: Need, number: int, begin: int, total: int, windows: Windows) -> tuple[float, int]:
    targets = need.targets(number, begin, total)
    return float(found(windows[number][begin], targets).sum(dtype=np.float64)), len(targets)


def perplexity_result(
    need: Need, sums: Sequence[tuple[float, int]], totals: Sequence[int], model_window: int, counted: int
) -> EvalResult:
    """The row from each document's sum of losses and count (of tokens or windows). The error is over documents."""
    weight = sum(count for _, count in sums)
    if not weight:
        raise DataError(
            f"no token can be scored with a window of {need.length}.\n  Give longer texts or longer windows."
        )
    mean = math.fsum(loss for loss, _ in sums) / weight
    error = clustered_error(sums)
    reason = None if error is not None else "one document: no spread between documents to measure"
    details = {"stderr_over": "documents"} if error is not None else {"stderr_reason": reason}
    return _row(need, mean, error, counted, totals, model_window, details)


def _sampled_result(
    need: Need, drawn: Sequence[tuple[float, int]], totals: Sequence[int], model_window: int
) -> EvalResult:
    if not drawn:
        raise DataError(
            f"no token can be scored with a window of {need.length}.\n  Give longer texts or longer windows."
        )
    means = [loss / count for loss, count in drawn]
    mean = math.fsum(means) / len(means)
    error = None
    if len(means) > 1:
        error = math.sqrt(math.fsum((m - mean) ** 2 for m in means) / (len(means) - 1) / len(means))
    details = {
        "windows_sampled": len(means),
        "stderr_reason" if error is None else "stderr_over": "one window drawn"
        if error is None
        else "windows drawn: how far the estimate lies from the exact figure on these texts",
    }
    return _row(need, mean, error, sum(count for _, count in drawn), totals, model_window, details)


def _row(
    need: Need,
    mean: float,
    error: float | None,
    counted: int,
    totals: Sequence[int],
    model_window: int,
    more: Mapping[str, object],
) -> EvalResult:
    value = math.exp(mean) if mean < 700 else None  # beyond the range of floats; the loss is in details
    estimated = f", estimated from {len(need.sample)} windows" if need.sample is not None else ""
    return EvalResult(
        name=NAME if need.definition.name == "sliding" else f"{NAME}-{need.definition.name}",
        protocol=need.protocol + estimated,
        length=need.length,
        metric=NAME,
        value=value,
        stderr=None if error is None or value is None else value * error,
        count=counted,
        higher_is_better=False,
        details={
            "loss": mean,
            "documents": len(totals),
            "documents_shorter_than_window": sum(size < need.length for size in totals),
            "beyond_window": need.length > model_window,
            **more,
        },
    )


def losses_by_position(length: int, windows: Windows, totals: Sequence[int], model_window: int) -> list[EvalResult]:
    """Mean loss of tokens by how many tokens stand before them, from each document's first window of `length`.

    A row's `length` is the end of its bucket; buckets widen by the square root of two.
    """
    rows = []
    edges = position_edges(length)
    for start, stop in pairwise(edges):
        sums = []
        for number, total in enumerate(totals):
            targets = range(min(start, total), min(stop, total, length))
            held = found(windows[number][0], targets) if len(targets) else np.empty(0)
            sums.append((float(held.sum(dtype=np.float64)), len(held)))
        count = sum(n for _, n in sums)
        if count:
            rows.append(_position_row(start, stop, sums, count, model_window))
    return rows


def _position_row(
    start: int, stop: int, sums: Sequence[tuple[float, int]], count: int, model_window: int
) -> EvalResult:
    error = clustered_error(sums)
    return EvalResult(
        name="loss-by-position",
        protocol="first window of each document, mean loss by tokens of context",
        length=stop,
        metric="loss",
        value=math.fsum(loss for loss, _ in sums) / count,
        stderr=error,
        count=count,
        higher_is_better=False,
        details={"from": start, "to": stop, "beyond_window": stop > model_window}
        | ({} if error is not None else {"stderr_reason": "one document reaches here"}),
    )


def position_edges(length: int) -> list[int]:
    """Where buckets of positions begin, and the end of the last.

    >>> position_edges(128)
    [1, 32, 45, 64, 91, 128]
    """
    steps = range(BUCKETS_AN_OCTAVE * 40)
    inner = [round(POSITIONS_FROM * 2 ** (step / BUCKETS_AN_OCTAVE)) for step in steps]
    return [1, *(edge for edge in inner if edge < length), length]


def clustered_error(sums: Sequence[tuple[float, int]]) -> float | None:
    """Standard error of the mean loss over documents (ratio estimator); None for fewer than two.

    Tokens of one document are alike, so an error over tokens would be far too small.
    """
    kept = [(loss, count) for loss, count in sums if count]
    if len(kept) < 2:
        return None
    total = sum(count for _, count in kept)
    mean = math.fsum(loss for loss, _ in kept) / total
    spread = math.fsum((loss - mean * count) ** 2 for loss, count in kept)
    return math.sqrt(spread * len(kept) / (len(kept) - 1)) / total
