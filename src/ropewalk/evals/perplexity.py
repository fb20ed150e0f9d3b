"""Perplexity by the sliding window protocol of the paper (arXiv 2306.15595, 3.2), after Press et al. (ALiBi).

A window of L tokens, targets included, slides over each document by the stride S. The first window scores all of its
tokens but the first; each later one, the tail included, scores its new tokens only, so every token counts once, under
up to L - 1 tokens of context. For windows below the stride, the stride is the window. Documents are never joined, and
the mean is over tokens: not over windows, which would let a first window of L tokens weigh as much as a later one of S.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ropewalk.errors import DataError
from ropewalk.model.scoring import Scorer
from ropewalk.record import EvalResult

PAPER_STRIDE = 256
BATCH_TOKENS = 16_384  # tokens of one forward pass; more gains nothing on two cores


@dataclass(frozen=True)
class WindowPass:
    """Windows of one size that go through the model together, at these begins of one document."""

    begins: tuple[int, ...]
    size: int


def stride_groups(lengths: Sequence[int], stride: int, *, nested: bool) -> list[tuple[int, ...]]:
    """Window lengths that share their passes: those with one stride in force, longest first.

    A shorter window at the same begin is the beginning of a longer one, and a token's state depends on what is before
    it alone: one pass serves both. Not `nested` (rotation that depends on the length): each length for itself.
    """
    ordered = sorted(set(lengths), reverse=True)
    if not nested:
        return [(length,) for length in ordered]
    long = tuple(length for length in ordered if length >= stride)
    return [group for group in (long, *((length,) for length in ordered if length < stride)) if group]


def scored_targets(begin: int, length: int, stride: int, total: int) -> range:
    """Targets, as positions in the document, that the window [begin, begin + length) scores; empty if it is not due.

    >>> scored_targets(0, 512, 256, 1000), scored_targets(256, 512, 256, 1000), scored_targets(768, 512, 256, 1000)
    (range(1, 512), range(512, 768), range(0, 0))
    """
    if begin == 0:
        return range(1, min(length, total))
    seen = begin - stride + length  # where the window before this one ended
    targets = range(max(seen, begin + 1), min(begin + length, total))
    return targets if len(targets) else range(0)


def window_passes(total: int, lengths: Sequence[int], stride: int) -> list[WindowPass]:
    """The forward passes over a document of `total` tokens for one stride group, in order.

    The first window stands alone: it scores from its first token, the others only at their ends, and apart the
    logits of fewer rows are made.
    """
    step = min(stride, *lengths)
    passes: list[WindowPass] = []
    for begin in range(0, total, step):
        due = [length for length in lengths if scored_targets(begin, length, step, total)]
        if not due:
            continue
        size = min(max(due), total - begin)
        last = passes[-1] if passes else None
        if last and last.begins[0] and last.size == size and (len(last.begins) + 1) * size <= BATCH_TOKENS:
            passes[-1] = WindowPass((*last.begins, begin), size)
        else:
            passes.append(WindowPass((begin,), size))
    return passes


def score_pass(
    scorer: Scorer, tokens: Sequence[int], window_pass: WindowPass, lengths: Sequence[int], stride: int
) -> dict[str, tuple[float, int]]:
    """Window length -> summed loss in nats and count of the tokens that this pass scores for it."""
    step = min(stride, *lengths)
    due = {
        (begin, length): targets
        for begin in window_pass.begins
        for length in lengths
        if (targets := scored_targets(begin, length, step, len(tokens)))
    }
    first = min(targets.start - begin for (begin, _), targets in due.items())
    windows = [tokens[begin : begin + window_pass.size] for begin in window_pass.begins]
    losses_BR = scorer.target_losses(windows, first).double()
    sums: dict[str, tuple[float, int]] = {}
    for (begin, length), targets in due.items():
        row = losses_BR[window_pass.begins.index(begin)]
        offset = begin + first
        loss, count = sums.get(str(length), (0.0, 0))
        added = row[targets.start - offset : targets.stop - offset].sum().item()
        sums[str(length)] = (loss + added, count + len(targets))
    return sums


def perplexity_result(
    length: int, stride: int, sums: Sequence[tuple[float, int]], sizes: Sequence[int], model_window: int
) -> EvalResult:
    """The row of one window length, from each document's summed loss and count. The standard error is over documents."""
    total = sum(count for _, count in sums)
    if not total:
        raise DataError(f"no token can be scored with a window of {length}.\n  Give longer texts or longer windows.")
    mean = math.fsum(loss for loss, _ in sums) / total
    error = clustered_error(sums)
    value = math.exp(mean) if mean < 700 else None  # beyond the range of floats; the loss is in details
    details = {
        "loss": mean,
        "documents": len(sums),
        "documents_shorter_than_window": sum(size < length for size in sizes),
        "beyond_window": length > model_window,
    }
    if error is None:
        details["stderr_reason"] = "one document: no spread between documents to measure"
    return EvalResult(
        name="perplexity",
        protocol=f"sliding window, stride {min(stride, length)}, token-weighted, each token once",
        length=length,
        metric="perplexity",
        value=value,
        stderr=None if error is None or value is None else value * error,
        count=total,
        higher_is_better=False,
        details=details,
    )


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
