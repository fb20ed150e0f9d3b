"""GovReport: summaries of long reports, scored with ROUGE, as in the paper (arXiv 2306.15595, 3.5, Figure 4, Table 6).

The first 15,000 tokens of a report stand in the prompt; the model goes on after "Summary:" until its end token, for
1,000 tokens at most, sampled at temperature 0.5 with top-p 0.95. The score is the mean over documents.

Not stated there, chosen here: the prompt is tokenized as one text, with a BOS if the tokenizer adds one; ROUGE is the
F-measure of `rouge_score` without stemming, ROUGE-L over a text as one sequence, as SCROLLS scored the entries that
Table 6 compares with. The prompt is that of `text/summaries.py`, which tuning on summaries shares.
"""

import random
import re
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download
from transformers import GenerationConfig

from ropewalk.errors import DataError
from ropewalk.evals.pieces import Pieces
from ropewalk.model.generation import bare_generation
from ropewalk.model.load import LoadedModel
from ropewalk.names import unknown
from ropewalk.progress import Progress, silent
from ropewalk.record import EvalResult
from ropewalk.text.documents import needed
from ropewalk.text.summaries import (
    REPORT_TOKENS,
    SUMMARY_TOKENS,
    Room,
    SummaryDocument,
    reports_in,
    summary_prompt,
    summary_room,
)

SAMPLERS: dict[str, dict[str, Any]] = {
    "paper": {"do_sample": True, "temperature": 0.5, "top_p": 0.95, "top_k": 0},  # 0: none; unset, it would be 50
    "greedy": {"do_sample": False},
}
METRICS = ("rouge1", "rouge2", "rougeL", "rougeLsum")
HUB = "ccdv/govreport-summarization"  # parquet: tau/scrolls, which the paper's counts are of, needs remote code
HUB_FILE = "document/validation-00000-of-00001.parquet"
HUB_REVISION = "4e21184e01ae8017e2c036e180fe5e541fef60a0"


def measured_summaries(
    loaded: LoadedModel, files: Path | None, *, limit: int | None = None, seed: int = 0, sampler: str = "paper",
    pieces: Pieces, progress: Progress = silent, max_new_tokens: int = SUMMARY_TOKENS,
) -> list[EvalResult]:  # fmt: skip
    """A row a metric, ROUGE-1, -2, -L and -Lsum, in percent; one piece a document holds its text and scores.

    Each document is sampled from a seed of its own, so neither order nor resuming changes its text. What the
    checkpoint's generation_config.json asks for (top-k, penalties, lengths) is ignored, but for its end tokens.
    """
    if sampler not in SAMPLERS:
        raise DataError(unknown("sampler", sampler, SAMPLERS))
    optional("rouge_score.rouge_scorer")  # before hours of work, not after
    room = summary_room(loaded.codec, loaded.window, max_new_tokens)
    documents = summary_documents(files, limit)
    keys = [f"govreport/{sampler}/{seed}/{index}" for index in range(len(documents))]
    todo = pieces.todo(keys)
    with progress.bar("summaries", len(documents), done=len(keys) - len(todo)) as bar:
        for index, document in enumerate(documents):
            if keys[index] in todo:
                pieces.add(keys[index], summarized(loaded, document, room, sampler, f"{seed}/{index}"))
                bar.advance()
    pieces.meet()
    return summary_results(
        [pieces[key] for key in keys], room, {"sampler": sampler, "seed": seed, "data": files.name if files else HUB}
    )


def summary_documents(files: Path | None, limit: int | None = None) -> list[SummaryDocument]:
    """The first `limit` reports of a jsonl or parquet file, or of the hub's validation set (None), and their summaries.

    Raises DataError as `reports_in` does.
    """
    return reports_in(files or hub_file(), limit)


def hub_file() -> Path:
    """GovReport's validation set, fetched from the hub unless it is cached. Raises DataError where neither works."""
    try:
        return Path(hf_hub_download(HUB, HUB_FILE, repo_type="dataset", revision=HUB_REVISION))
    except Exception as error:  # the hub raises its own errors, those of its http client, and OSError
        raise DataError(
            f"GovReport cannot be had: fetching {HUB} from the hub ended with {type(error).__name__}.\n"
            "  Without a local file the reports come from there; a network is needed once.\n"
            "  Give a folder with gov_report.jsonl (--task-files), each line an object with the fields "
            '"report" and "summary".'
        ) from error


def summarized(loaded: LoadedModel, document: SummaryDocument, room: Room, sampler: str, seed: str) -> dict[str, Any]:
    """What a piece keeps of one document: the text written, its ROUGE, and the counts for `details`."""
    prompt, cut_by = summary_prompt(loaded.codec, document.report, room)
    ids, ended = written(loaded, prompt, room.summary, sampler, seed)
    text = loaded.codec.decode([token for token in ids if token not in loaded.codec.bos]).strip()
    counts = {"tokens_in": len(prompt), "tokens_out": len(ids), "ended": ended, "cut_by": cut_by}
    return {"document": document.name, "text": text, **counts, "scores": rouge_scores(text, document.summary)}


def written(loaded: LoadedModel, prompt: Sequence[int], count: int, sampler: str, seed: str) -> tuple[list[int], bool]:
    """Up to `count` ids that the model writes after `prompt`, up to its end token, and whether it came to one."""
    model: Any = loaded.model
    asked = model.generation_config.eos_token_id
    asked = getattr(model.config, "eos_token_id", None) if asked is None else asked
    ends = [] if asked is None else asked if isinstance(asked, list) else [asked]
    special = {"eos_token_id": ends or None, "pad_token_id": (ends or [0])[0]}
    wanted = GenerationConfig(max_new_tokens=count, use_cache=True, **special, **SAMPLERS[sampler])
    tokens_BL = torch.tensor([list(prompt)], device=loaded.device)
    with bare_generation(model), torch.random.fork_rng([loaded.device] if loaded.device.type == "cuda" else []):
        torch.manual_seed(random.Random(seed).getrandbits(63))
        out_BL = model.generate(tokens_BL, attention_mask=torch.ones_like(tokens_BL), generation_config=wanted)
    ids = out_BL[0, len(prompt) :].tolist()
    length = next((place for place, token in enumerate(ids) if token in ends), len(ids))
    return ids[:length], length < len(ids)


def rouge_scores(summary: str, reference: str) -> dict[str, float]:
    """ROUGE F-measures from 0 to 1, without stemming. Only a-z and 0-9 make words: other scripts score 0.

    rougeL takes a text as one sequence, rougeLsum by sentences, which end at a line break or at . ! ? before a space.
    """
    scorer = optional("rouge_score.rouge_scorer").RougeScorer(METRICS, use_stemmer=False)
    scores = scorer.score(*(re.sub(r"(?<=[.!?])\s+", "\n", text) for text in (reference, summary)))
    return {name: float(scores[name].fmeasure) for name in METRICS}


def summary_results(pieces: Sequence[dict[str, Any]], room: Room, given: dict[str, Any]) -> list[EvalResult]:
    """A row a metric from the pieces of all documents; `given` goes into `details`. The error is over documents."""
    scores = {metric: [100 * piece["scores"][metric] for piece in pieces] for metric in METRICS}
    how = ", ".join(f"{key} {value}" for key, value in SAMPLERS[given["sampler"]].items())
    alone = {"stderr_reason": "one document: no spread between documents to measure"} if len(pieces) < 2 else {}
    return [
        EvalResult(
            name="govreport", length=max(piece["tokens_in"] for piece in pieces), metric=metric,
            protocol=f"reports to {room.report} tokens, summaries to {room.summary}, {how}, ROUGE F without stemming",
            value=statistics.fmean(values), count=len(values), higher_is_better=True,
            stderr=None if alone else statistics.stdev(values) / len(values) ** 0.5,
            details=given | _counts(pieces, room, given["sampler"]) | alone,
        )
        for metric, values in scores.items()
    ]  # fmt: skip


def _counts(pieces: Sequence[dict[str, Any]], room: Room, sampler: str) -> dict[str, Any]:
    cut = [piece["cut_by"] for piece in pieces]
    differs = {
        f"reports are cut to {room.report} tokens, not {REPORT_TOKENS}": "window" in cut,
        f"summaries are cut to {room.summary} tokens, not {SUMMARY_TOKENS}": room.summary != SUMMARY_TOKENS,
        f"decoding is {sampler}": sampler != "paper",
        f"documents: {len(pieces)}, not 972": len(pieces) < 972,
    }
    return {
        "window": room.window,
        **{f"reports_cut_by_{by}": cut.count(by) for by in ("protocol", "window")},
        **{f"mean_{name}": statistics.fmean(piece[name] for piece in pieces) for name in ("tokens_in", "tokens_out")},
        "ended_by_themselves": sum(piece["ended"] for piece in pieces),
        "empty_summaries": sum(not piece["text"] for piece in pieces),
        "comparable_with_paper": not any(differs.values()),
        "differs_from_paper": [reason for reason, so in differs.items() if so],
    }


def optional(module: str) -> Any:
    return needed(module, "summaries", "evals")
