"""Texts -> the rows of a run, and what is to be known of the texts: which they are, and how long.

Long-range attention is learned from long documents. Texts that are each shorter than the original window, laid side by
side, fill a longer one with what has nothing to do with each other; so their share is counted, and a run on nothing
else is refused.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ropewalk.errors import DataError
from ropewalk.model.load import TextCodec
from ropewalk.pilot.corpus import PILOT, copying_row, retrieval_documents, training_texts
from ropewalk.text.documents import text_sha256
from ropewalk.text.sources import Sources, sources
from ropewalk.text.summaries import SummaryDocument, reports_in, summary_room
from ropewalk.train.recipe import RECIPES, Recipe
from ropewalk.train.rows import Row, Rows, SummaryRows, TokenRows, joined_rows, joined_tokens

# Interpolation takes from a model this small the heads that look one token back, and retrieval with them; text alone
# brings them back slowly. Repeated spans teach the first, passkeys the second: see docs/results.md.
PILOT_RETRIEVAL_SHARE = 0.5  # of the pilot's rows are no text
PILOT_COPYING_SHARE = 0.3  # of those are spans that repeat, the others passkey documents
PILOT_AT_ENDS = 0.25  # of those have their keys at the two ends more often, where cells of the grid meet
PILOT_ANSWER_WEIGHT = 12.0  # of a token of an answer in them, beside any other token
FEW_LONG = 0.5  # a share of tokens in long documents below this is worth a warning


@dataclass
class TextsRead:
    """What was read for a run, in order: the digest and the tokens of each document; `inputs` for the record.

    Sizes are empty for reports, which are not joined, and which the row they stand in cuts.
    """

    inputs: list[dict[str, Any]]
    digests: list[str] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)

    def tokens_beyond(self, window: int) -> int:
        """How many of the tokens come from documents longer than `window`."""
        return sum(size for size in self.sizes if size > window)

    def share_beyond(self, window: int) -> float:
        return self.tokens_beyond(window) / max(1, sum(self.sizes))


def training_rows(
    codec: TextCodec, data: Sequence[str | Path], recipe: Recipe, seed: int
) -> tuple[TokenRows | SummaryRows, TextsRead]:
    """The rows to train on, and what was read for them: no more documents than the run needs, files in random order.

    The pilot's corpus has retrieval documents and spans that repeat mixed in. Raises DataError when the texts do not fill a row.
    """
    if recipe.epochs:
        return _summary_rows(codec, data, recipe, seed)
    builtin = [str(one) for one in data if _is_builtin(one)]
    given = sources([one for one in data if not _is_builtin(one)]).shuffled(seed)
    read = TextsRead(given.inputs())
    documents = _tokenized(codec, given, training_texts(seed) if builtin else iter(()), read)
    tokens = joined_tokens(documents, recipe.steps * recipe.batch_tokens, recipe.length, ", ".join(map(str, data)))
    starts = np.cumsum([0, *read.sizes[:-1]], dtype=np.int64) if recipe.packing == "documents" else None
    rows = TokenRows(
        tokens, recipe.length, seed, starts=starts, chunks=recipe.chunks, reach=recipe.reach, mixed=recipe.mixed,
        piece=recipe.window.original if recipe.mixed else 0,
    )  # fmt: skip
    if builtin:
        vocabulary, digits = _known_tokens(codec)
        rows.retrieval = lambda size, rng: (
            _copies(vocabulary, digits, size, rng)
            if rng.random() < PILOT_COPYING_SHARE
            else _passkeys(codec, size, rng)
        )
        rows.retrieval_share = PILOT_RETRIEVAL_SHARE
    return rows, read


def _is_builtin(one: str | Path) -> bool:
    return str(one) == PILOT and not Path(one).exists()


def _tokenized(codec: TextCodec, given: Sources, builtin: Iterator[str], read: TextsRead) -> Iterator[list[int]]:
    """The tokens of each document, written down in `read` as it is handed on."""
    for text in (text for part in ((one.text for one in given.documents()), builtin) for text in part):
        tokens = codec.document(text)
        read.digests.append(text_sha256(text))
        read.sizes.append(len(tokens))
        yield tokens


def _passkeys(codec: TextCodec, length: int, rng: random.Random) -> Row:
    """A row of passkey documents; its few answers weigh more, as they did when the pilot was made."""
    return joined_rows(
        [
            Row(
                np.array(document.tokens, dtype=np.int64),
                np.repeat([1.0, PILOT_ANSWER_WEIGHT], [len(document.prompt), len(document.answer)]).astype(np.float32),
            )
            for document in retrieval_documents(codec, codec.bos, length, rng, at_ends=rng.random() < PILOT_AT_ENDS)
        ]
    )


def _known_tokens(codec: TextCodec) -> tuple[list[int], list[int]]:
    """The tokens that stand for text, and those of the ten digits."""
    special = set(codec.tokenizer.all_special_ids)
    vocabulary = [token for token in range(min(len(codec.tokenizer), codec.vocabulary)) if token not in special]
    return vocabulary, [codec.encode(str(digit))[-1] for digit in range(10)]


def _copies(vocabulary: Sequence[int], digits: Sequence[int], length: int, rng: random.Random) -> Row:
    """A row of random spans that repeat; what cannot be known is no target."""
    tokens, known = copying_row(vocabulary, digits, length, rng)
    return Row(np.array(tokens, dtype=np.int64), np.array(known, dtype=np.float32))


def _summary_rows(
    codec: TextCodec, data: Sequence[str | Path], recipe: Recipe, seed: int
) -> tuple[SummaryRows, TextsRead]:
    given, pairs = _reports(data)
    end = codec.tokenizer.eos_token_id
    if end is None:
        raise DataError(
            "the tokenizer has no end of a text, and a summary has to end.\n"
            "  After it the model would write on until it is cut off.\n"
            "  Name an eos_token in tokenizer_config.json."
        )
    rows = SummaryRows(codec, pairs, summary_room(codec, recipe.length), [end], seed)
    return rows, TextsRead(given.inputs(), [text_sha256(pair.report) for pair in pairs])


def _reports(data: Sequence[str | Path]) -> tuple[Sources, list[SummaryDocument]]:
    """The files of reports and all that is in them. Raises DataError for what holds no reports."""
    given = sources([one for one in data if not _is_builtin(one)])
    if not given.files or given.data_sets or any(map(_is_builtin, data)):
        raise DataError(
            f"no reports with summaries in {', '.join(map(str, data))}.\n"
            "  The recipe summaries reads jsonl or parquet files, each entry a report and its summary.\n"
            '  Give such a file with --data: {"report": "...", "summary": "..."} a line.'
        )
    return given, [pair for file in given.files for pair in reports_in(file)]


def pairs_of(recipe: str, data: Sequence[str | Path]) -> int | None:
    """How many reports an epoch of the recipe has; None where it has no epochs."""
    known = RECIPES.get(recipe)
    return len(_reports(data)[1]) if known and known.epochs else None


def require_long_documents(read: TextsRead, recipe: Recipe, *, allow_short: bool) -> None:
    """Raises DataError where the window is to be lengthened on documents that all fit into the original one."""
    window = recipe.window
    if allow_short or not _lengthens(recipe) or not read.sizes or read.tokens_beyond(window.original):
        return
    raise DataError(
        f"none of the {len(read.sizes)} documents is longer than the original window of {window.original} tokens; "
        f"the longest has {max(read.sizes)}.\n"
        "  Attention over a longer distance cannot be learned from them: side by side they have nothing to do with "
        "each other.\n"
        "  Give longer texts (a file of text is one document), or tune on these all the same: --allow-short-documents."
    )


def warnings_of(rows: Rows, read: TextsRead, recipe: Recipe, method: str | None) -> list[str]:
    """What may not be as it was meant: texts read again and again, few long ones among them, another method's recipe."""
    said = []
    if recipe.name == "direct" and method not in (None, "none"):
        said.append(
            f"the recipe direct is for a rotation that was not rescaled, and this one was, by {method}: "
            "what comes of it is no baseline. --recipe paper takes as few steps as such a checkpoint needs."
        )
    asked = recipe.steps * recipe.sequences * (1 - (rows.retrieval_share if isinstance(rows, TokenRows) else 0))
    if not recipe.epochs and rows.count < asked:
        epochs = recipe.steps * recipe.sequences / rows.count
        said.append(f"the texts fill {rows.count} sequences; the run reads each about {epochs:.1f} times.")
    share = read.share_beyond(recipe.window.original)
    if _lengthens(recipe) and read.sizes and share < FEW_LONG:
        said.append(
            f"only {share:.0%} of the tokens come from documents longer than the original window of "
            f"{recipe.window.original} tokens: attention beyond it is learned from those alone."
        )
    return said


def _lengthens(recipe: Recipe) -> bool:
    """Whether positions beyond the original window are trained."""
    return recipe.reach > recipe.window.original


def for_record(rows: TokenRows | SummaryRows, read: TextsRead, recipe: Recipe) -> dict[str, Any]:
    """What run.json says of the rows and the texts behind them."""
    told: dict[str, Any] = {"rows_of_text": rows.count, "packing": recipe.packing, "documents_read": len(read.digests)}
    if isinstance(rows, TokenRows):
        told |= {
            "original_window": recipe.window.original,
            "tokens_in_long_documents": read.tokens_beyond(recipe.window.original),
            "share_in_long_documents": round(read.share_beyond(recipe.window.original), 4),
            "retrieval_share": rows.retrieval_share,
            "copying_share": PILOT_COPYING_SHARE if rows.retrieval else 0.0,
            "answer_weight": PILOT_ANSWER_WEIGHT if rows.retrieval else 1.0,
        }
    if recipe.chunks > 1:
        told |= {"chunks": recipe.chunks, "positions_to": recipe.reach}
    if recipe.mixed:
        told |= {"share_in_pieces": recipe.mixed, "piece": recipe.window.original}
    return told | {"rows_sha256": rows.digest()}
