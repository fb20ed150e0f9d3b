"""Which texts are scored, and how much of each."""

import hashlib
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ropewalk.checkpoint.trained_on import TRAINED_ON
from ropewalk.errors import DataError
from ropewalk.model.load import TextCodec
from ropewalk.pilot.corpus import PILOT, heldout_modules, heldout_note
from ropewalk.progress import Progress
from ropewalk.text.documents import Document, text_sha256
from ropewalk.text.sources import sources
from ropewalk.text.summaries import SummaryDocument


@dataclass(frozen=True)
class ScoredDocument:
    """One document's tokens, after cutting, and the digest of the whole text."""

    name: str
    tokens: list[int]
    sha256: str = ""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What of the given texts is scored.

    The first `documents` texts, or with `min_tokens` so many drawn at random under `seed` from those of at least that
    length, as the paper drew 128 of proof-pile's (3.2). Each is cut at `truncate_tokens`, all together at `max_tokens`.
    """

    data: tuple[str, ...]
    documents: int | None = None
    min_tokens: int | None = None
    truncate_tokens: int | None = None
    max_tokens: int | None = None
    seed: int = 0


def scored_documents(
    codec: TextCodec, selection: Selection, progress: Progress
) -> tuple[list[ScoredDocument], list[dict[str, Any]]]:
    """The documents to score, cut as asked, and the files they came from. Raises DataError when there is none."""
    texts: list[Document] = []
    if PILOT in selection.data and not Path(PILOT).exists():
        texts += [Document(module.name, module.text) for module in heldout_modules()]
        if note := heldout_note():
            progress.warn(note)
    given = sources([one for one in selection.data if one != PILOT or Path(one).exists()])
    every: Iterable[Document] = (document for part in (texts, given.documents()) for document in part)
    if selection.min_tokens is not None:
        every = list(every)
        random.Random(selection.seed).shuffle(every)
    scored, passed_over = _cut(codec, every, selection)
    if passed_over:
        progress.note(f"{passed_over} documents of less than {selection.min_tokens} tokens are not scored")
    if scored and selection.documents is not None and len(scored) < selection.documents:
        progress.warn(f"{len(scored)} documents are scored, not the {selection.documents} that were asked for")
    if not scored:
        raise DataError(_nothing(selection, passed_over))
    return scored, given.inputs()


def _cut(codec: TextCodec, every: Iterable[Document], selection: Selection) -> tuple[list[ScoredDocument], int]:
    scored: list[ScoredDocument] = []
    passed_over, left = 0, selection.max_tokens
    for document in every:
        full = selection.documents is not None and len(scored) >= selection.documents
        if full or (left is not None and left <= 1):
            break
        tokens = codec.document(document.text)
        if selection.min_tokens is not None and len(tokens) < selection.min_tokens:
            passed_over += 1
            continue
        ends = [n for n in (selection.truncate_tokens, left) if n is not None]
        tokens = tokens[: min(ends) if ends else None]
        if len(tokens) > 1:
            scored.append(ScoredDocument(document.name, tokens, document.sha256))
            left = None if left is None else left - len(tokens)
    return scored, passed_over


def _nothing(selection: Selection, passed_over: int) -> str:
    given = ", ".join(selection.data)
    if passed_over:
        return (
            f"no text in {given} has {selection.min_tokens} tokens, as --min-tokens asks; {passed_over} have less.\n"
            "  Give longer texts, or a smaller --min-tokens."
        )
    return (
        f"no text to score in {given}.\n"
        "  Every document is empty, or one token long.\n"
        "  Give texts with --data, or a larger --max-tokens."
    )


def trained_among(
    scored: Sequence[ScoredDocument], reports: Sequence[SummaryDocument], digests: frozenset[str]
) -> list[str]:
    """Names of the documents and reports that are among those that a checkpoint was tuned on."""
    named = [(document.name, document.sha256) for document in scored]
    named += [(report.name, text_sha256(report.report)) for report in reports]
    return [name for name, sha256 in named if sha256 in digests]


def require_unread(names: Sequence[str], folder: Path) -> None:
    """Raises DataError when there are any: a model's figures on texts it was tuned on say nothing of others."""
    if names:
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        raise DataError(
            f"{folder} was tuned on what it is to be measured on: {names[0]}{more}.\n"
            f"  Its {TRAINED_ON} lists the texts; a figure on them is not one on texts it has not read.\n"
            "  Give other texts with --data, or --allow-overlap where that is what you want to know."
        )


def texts_of(scored: Sequence[ScoredDocument]) -> list[dict[str, Any]]:
    """For the record: names, lengths, and what tells one text from another."""
    return [
        {
            "name": document.name,
            "tokens": len(document.tokens),
            "sha256": hashlib.sha256(np.array(document.tokens, dtype="<i4").tobytes()).hexdigest(),
        }
        for document in scored
    ]


def texts_sha256(scored: Sequence[ScoredDocument], files: Sequence[dict[str, Any]]) -> str:
    """One digest of the documents as they are scored, and of the task files that are read."""
    parts = [text["sha256"] for text in texts_of(scored)] + [str(file["sha256"]) for file in files]
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()
