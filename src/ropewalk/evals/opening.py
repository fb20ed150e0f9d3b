"""The model that is asked, opened for the ranks that ask it: whole on each, or one over several that share each text."""

from collections.abc import Sequence
from typing import Any

from ropewalk.checkpoint.folder import Checkpoint
from ropewalk.errors import RankError
from ropewalk.model.budget import batch_tokens_for
from ropewalk.model.load import LoadedModel, load_model
from ropewalk.model.ranks import Ranks
from ropewalk.model.scoring import Scorer
from ropewalk.model.shared_scoring import SharedScorer, load_shared

SHAREABLE = ("perplexity", "passkey", "passkey-near-start", "passkey-anywhere")  # a text is read, and none written


def require_shareable(tasks: Sequence[str], sequence: int) -> None:
    """Raises RankError for a task that ranks cannot share the texts of."""
    alone = [task for task in tasks if task not in SHAREABLE]
    if sequence > 1 and alone:
        raise RankError(
            f"--sequence-parallel {sequence} cannot be had for {', '.join(alone)}.\n"
            f"  Ranks share the texts of {', '.join(SHAREABLE)}; the others write tokens, or read short texts.\n"
            "  Ask for those in another --out, without --sequence-parallel."
        )


def opened(
    checkpoint: Checkpoint, ranks: Ranks, *, dtype: str | None, device: str | None, memory_budget: int | None,
    batch_tokens: int | None,
) -> tuple[LoadedModel, Scorer]:  # fmt: skip
    """The model and its scorer. `batch_tokens` are those the work was begun with (None: what memory bears)."""
    if ranks.layout.sequence > 1:
        loaded, weights, group = load_shared(checkpoint, ranks, dtype=dtype, device=device)
        batch_tokens = _least(batch_tokens or batch_tokens_for(loaded.model, memory_budget), ranks)
        return loaded, SharedScorer(loaded, weights, group, batch_tokens)
    loaded = load_model(checkpoint, dtype=dtype, device=device)
    batch_tokens = _least(batch_tokens or batch_tokens_for(loaded.model, memory_budget), ranks)
    return loaded, Scorer(loaded.model, batch_tokens)


def _least(batch_tokens: int, ranks: Ranks) -> int:
    return int(ranks.least(batch_tokens))  # passes are cut alike on all ranks


def engine_in_words(scorer: Scorer, ranks: Ranks) -> str:
    if ranks.layout.sequence > 1:
        return f"each text over {ranks.layout.sequence} ranks"
    return "shared prefixes, chosen rows" if scorer.lean else "the stock forward pass"


def layout_for_record(ranks: Ranks) -> dict[str, Any]:
    """For run.json, of a run that torchrun started: how its ranks were laid out."""
    if ranks.line is None:
        return {}
    return {"layout": {"data": ranks.layout.data, "sequence": ranks.layout.sequence}}
