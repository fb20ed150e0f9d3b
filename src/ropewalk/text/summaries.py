"""Reports with their summaries, and the prompt that asks for one (arXiv 2306.15595, 3.5, Figure 4).

Evaluation and tuning share it: the first 15,000 tokens of a report stand in the prompt, and the summary, of 1,000
tokens at most, follows "Summary:". The prompt is tokenized as one text, with a BOS if the tokenizer adds one.
"""

import bisect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from ropewalk.errors import DataError
from ropewalk.text.documents import PARQUET_SUFFIXES, needed

HEAD = "Read the following article and then summarize it.\n"
TAIL = "\nNow summarize the above article.\nSummary:"
REPORT_TOKENS = 15_000
SUMMARY_TOKENS = 1_000


class Codec(Protocol):
    """What this module needs of a tokenizer: ids of a text alone, and of one with what is put before a document."""

    def encode(self, text: str) -> list[int]: ...

    def document(self, text: str) -> list[int]: ...


class SummaryDocument(NamedTuple):
    name: str
    report: str
    summary: str  # as people wrote it


class Room(NamedTuple):
    """How a window is shared out, in tokens: at most `report` of each report, at most `summary` to be written."""

    window: int
    report: int
    summary: int


def reports_in(file: Path, limit: int | None = None) -> list[SummaryDocument]:
    """The first `limit` reports of a jsonl or parquet file, and their summaries.

    A report is the field "report" or "input", its summary "summary", "output", or "outputs" (a list of one). Entries
    with an empty one are skipped. Raises DataError for other entries, with the line.
    """
    if limit is not None and limit < 1:
        raise DataError(f"{limit} documents give no mean.\n  Give at least 1, or no limit.")
    read = (_document(file, number, entry) for number, entry in _entries(file))
    found = [document for document in read if document.report.strip() and document.summary.strip()][:limit]
    if not found:
        raise DataError(f"no report with a summary in {file}.\n  Each line holds one.\n  Give another file.")
    return found


def _entries(file: Path) -> Iterator[tuple[int, Any]]:
    parquet = needed("pyarrow.parquet", "parquet files", "data") if file.suffix in PARQUET_SUFFIXES else None
    try:
        found = parquet.read_table(file).to_pylist() if parquet else file.read_text(encoding="utf-8").split("\n")
    except (OSError, ValueError) as error:
        raise DataError(
            f"{file} cannot be read: {error}.\n  Reports are read as UTF-8 jsonl or parquet.\n  Check the path."
        ) from None
    return ((number, entry) for number, entry in enumerate(found, 1) if not isinstance(entry, str) or entry.strip())


def _document(file: Path, number: int, entry: Any) -> SummaryDocument:
    try:
        fields = json.loads(entry) if isinstance(entry, str) else entry
        report = fields["report" if "report" in fields else "input"]
        summary = fields[next((name for name in ("summary", "output", "outputs") if name in fields), "summary")]
        if isinstance(summary, list):
            (summary,) = summary
        _ = report.encode(), summary.encode()  # half a surrogate pair, which JSON can hold, has no tokens
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        raise DataError(
            f"line {number} of {file} is not a report with its summary: {error!r}.\n"
            '  Expected an object with "report" or "input", and "summary", "output" or "outputs" (a list of one).\n'
            "  Correct the line."
        ) from None
    return SummaryDocument(f"{file.name}:{number}", report, summary)


def summary_room(codec: Codec, window: int, summary: int = SUMMARY_TOKENS) -> Room:
    """The paper's 15,000 and 1,000 tokens, or less where the window is smaller; the summary has half of it at most."""
    frame = len(codec.document(HEAD + TAIL))
    summary = min(summary, window // 2)
    if (left := window - frame - summary) < 1:
        raise DataError(
            f"a window of {window} tokens has no room for a report to summarize.\n"
            f"  The prompt around it takes {frame}, the summary {summary}; "
            f"the paper's protocol takes {REPORT_TOKENS + frame + SUMMARY_TOKENS} in all, with this tokenizer.\n"
            "  Extend the window, or leave the summaries out."
        )
    return Room(window, min(REPORT_TOKENS, left), summary)


def summary_prompt(codec: Codec, report: str, room: Room) -> tuple[list[int], str]:
    """The prompt's ids, and what cut the report: "nothing", "protocol" or "window". The frame is never cut."""
    limit, whole = room.report, len(codec.encode(report))
    while True:
        end = len(report)
        if whole > limit:  # cut as text, not as tokens: no character is halved, and the ids are those of the text
            end = bisect.bisect(range(1, end), limit, key=lambda size: len(codec.encode(report[:size])))
        tokens = codec.document(HEAD + report[:end] + TAIL)
        if (over := len(tokens) - (room.window - room.summary)) <= 0:
            return tokens, "nothing" if end == len(report) else "protocol" if limit == REPORT_TOKENS else "window"
        limit -= over  # tokens at the seams, which the parts alone do not have


def summary_ids(codec: Codec, summary: str, end: list[int], room: Room) -> list[int]:
    """The ids that are to follow the prompt: the summary and `end`, cut at the room they have.

    They are those that stand after "Summary:" when both are one text. A tokenizer that joins the two gets the summary's
    own, since the prompt's must stay what they are when the model is asked.
    """
    text = " " + summary.strip()
    before, whole = codec.encode(TAIL), codec.encode(TAIL + text)
    ids = whole[len(before) :] if whole[: len(before)] == before else codec.encode(text)
    return [*ids, *end][: room.summary]
