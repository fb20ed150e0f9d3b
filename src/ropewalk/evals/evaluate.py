"""`ropewalk evaluate`: one model, some questions, one folder with a record."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ropewalk.checkpoint.folder import Checkpoint, open_checkpoint
from ropewalk.checkpoint.output import finished_run, folder_status, make_folder
from ropewalk.checkpoint.subject import subject_of
from ropewalk.errors import DataError
from ropewalk.evals.passkey import Cell, grid, longest_start, passed, passkey_results
from ropewalk.evals.perplexity import PAPER_STRIDE, perplexity_result, score_pass, stride_groups, window_passes
from ropewalk.evals.pieces import Pieces
from ropewalk.model.load import LoadedModel, TextCodec, describe_device, load_codec, load_model
from ropewalk.model.scoring import Scorer, has_static_rotation
from ropewalk.names import unknown
from ropewalk.pilot.corpus import PILOT, heldout_modules, heldout_note
from ropewalk.progress import Progress, silent
from ropewalk.record import EvalResult, Run, input_file, read_run
from ropewalk.text.documents import Document, document_files, documents

TASKS = ("perplexity", "passkey")
SHORTEST_WINDOW = 256  # where the default windows begin; the paper's stride


@dataclass(frozen=True)
class ScoredDocument:
    """One document's tokens, after cutting."""

    name: str
    tokens: list[int]


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which texts are scored, and how much of each."""

    data: tuple[str, ...]
    documents: int | None
    truncate_tokens: int | None
    max_tokens: int | None


def evaluate(
    model: str | Path,
    *,
    out: str | Path,
    data: Sequence[str | Path] = (PILOT,),
    tasks: Sequence[str] = TASKS,
    lengths: Sequence[int] | None = None,
    stride: int = PAPER_STRIDE,
    max_tokens: int | None = None,
    document_count: int | None = None,
    truncate_tokens: int | None = None,
    dtype: str | None = None,
    device: str | None = None,
    seed: int = 0,
    resume: bool = False,
    progress: Progress = silent,
) -> Run:
    """Measures `model` and leaves a record in the new folder `out`; gives the record.

    `data` are texts (files and folders), or "pilot" for the built-in held-out modules. `lengths` are perplexity
    windows in tokens (None: powers of two from 256 to the model's window, and the window); the longest is also the
    passkey's target. `document_count` takes the first so many texts, `truncate_tokens` cuts each of them, and
    `max_tokens` bounds them all together, in order. Raises RopewalkError for what the caller can mend.

    >>> run = evaluate("pilot", tasks=["perplexity"], lengths=[64, 256], max_tokens=1024, out=folder / "measured")
    >>> [(row.metric, row.length, row.count) for row in run.results]
    [('perplexity', 64, 1008), ('perplexity', 256, 1020)]
    """
    out = Path(out)
    given: dict[str, Any] = {
        "model": str(model), "data": [str(d) for d in data], "tasks": list(tasks),
        "lengths": None if lengths is None else list(lengths), "stride": stride, "max_tokens": max_tokens,
        "documents": document_count, "truncate_tokens": truncate_tokens, "dtype": dtype, "device": device, "seed": seed,
    }  # fmt: skip
    if (finished := finished_run(out, given, resume=resume)) is not None:
        return finished
    checkpoint = open_checkpoint(model)
    _check(tasks, lengths, stride)
    windows = tuple(sorted(set(lengths))) if lengths else default_lengths(checkpoint.rope.window.target)
    codec = load_codec(checkpoint)
    selection = Selection(
        data=tuple(map(str, data)), documents=document_count, truncate_tokens=truncate_tokens, max_tokens=max_tokens
    )
    scored, inputs = scored_documents(codec, selection, progress) if "perplexity" in tasks else ([], [])
    _require_same_texts(out, inputs)
    cells = grid(codec, max(windows), seed) if "passkey" in tasks else []
    _warn(checkpoint, windows, scored, progress)
    loaded = load_model(checkpoint, dtype=dtype, device=device)
    make_folder(out)
    run = Run(
        command="evaluate",
        given=given,
        resolved={
            "subject": subject_of(checkpoint),
            "tasks": list(tasks),
            "lengths": list(windows),
            "stride": stride,
            "documents": [{"name": d.name, "tokens": len(d.tokens)} for d in scored],
            "bos": "as the tokenizer adds it, once a document" if codec.bos else "none: the tokenizer adds none",
        },
        ropes={"model": {kind: rope.for_record() for kind, rope in checkpoint.ropes.items()}},
        seed=seed,
        device=describe_device(loaded.device, loaded.model.dtype),
        inputs=inputs,
    )
    with run.recorded(out):
        pieces = Pieces(out / "pieces.jsonl")
        if scored:
            run.results += measured_perplexity(loaded, scored, windows, stride, pieces, progress)
        if cells:
            run.results += measured_passkey(loaded, cells, max(windows), pieces, progress)
    return run


def _require_same_texts(out: Path, inputs: list[dict[str, Any]]) -> None:
    """Raises DataError when the pieces in `out` were made from other texts than those that are there now."""
    if folder_status(out) not in (None, "empty") and read_run(out).inputs != inputs:
        raise DataError(
            f"the texts are not those that {out} was begun with.\n"
            "  Its pieces and new ones would be of different texts.\n"
            "  Give the same --data, or another --out."
        )


def measured_perplexity(
    loaded: LoadedModel,
    scored: Sequence[ScoredDocument],
    lengths: Sequence[int],
    stride: int,
    pieces: Pieces,
    progress: Progress,
) -> list[EvalResult]:
    """A row a window length, shortest first."""
    scorer = Scorer(loaded.model)
    work = [
        (number, document, group, window_pass)
        for number, document in enumerate(scored)
        for group in stride_groups(lengths, stride, nested=has_static_rotation(loaded.model))
        for window_pass in window_passes(len(document.tokens), group, stride)
    ]
    sums: dict[tuple[str, int], list[tuple[float, int]]] = {}
    with progress.bar("perplexity", len(work)) as bar:
        for number, document, group, window_pass in work:
            key = f"perplexity/{number}/{'-'.join(map(str, group))}/{window_pass.begins[0]}"
            if key not in pieces:
                pieces.add(key, score_pass(scorer, document.tokens, window_pass, group, stride))
            for length, (loss, count) in pieces[key].items():
                sums.setdefault((length, number), []).append((loss, count))
            bar.advance()
    sizes = [len(document.tokens) for document in scored]
    results = []
    for length in sorted(lengths):
        parts = [sums.get((str(length), number), []) for number in range(len(scored))]
        totals = [(sum(loss for loss, _ in part), sum(count for _, count in part)) for part in parts]
        results.append(perplexity_result(length, stride, totals, sizes, loaded.window))
    return results


def measured_passkey(
    loaded: LoadedModel, cells: Sequence[Cell], target: int, pieces: Pieces, progress: Progress
) -> list[EvalResult]:
    """A row a distance, nearest first, and k_max."""
    scorer = Scorer(loaded.model)
    start = None
    with progress.bar(f"passkey at {target}", len(cells)) as bar:
        for cell in cells:
            key = f"passkey/{target}/{cell.distance}"
            if key not in pieces:
                start = start or longest_start(scorer, cells)
                pieces.add(key, passed(scorer, start, cell))
            bar.advance()
    return passkey_results(cells, [pieces[f"passkey/{target}/{c.distance}"] for c in cells], target, loaded.window)


def default_lengths(window: int) -> tuple[int, ...]:
    """Powers of two from 256 below the window, and the window.

    >>> default_lengths(3000)
    (256, 512, 1024, 2048, 3000)
    """
    powers = [SHORTEST_WINDOW * 2**i for i in range(20)]
    return (*[power for power in powers if power < window], window)


def scored_documents(
    codec: TextCodec, selection: Selection, progress: Progress
) -> tuple[list[ScoredDocument], list[dict[str, Any]]]:
    """The documents to score, cut as asked, and the files they came from."""
    texts: list[Document] = []
    inputs: list[dict[str, Any]] = []
    if PILOT in selection.data and not Path(PILOT).exists():
        texts += [Document(module.name, module.text) for module in heldout_modules()]
        if note := heldout_note():
            progress.warn(note)
    files = document_files([Path(d) for d in selection.data if d != PILOT or Path(d).exists()])
    inputs += [input_file(file) for file in files]
    scored: list[ScoredDocument] = []
    left = selection.max_tokens
    for document in (*texts, *documents(files)):
        if (left is not None and left <= 0) or (selection.documents is not None and len(scored) >= selection.documents):
            break
        ends = [n for n in (selection.truncate_tokens, left) if n is not None]
        tokens = codec.document(document.text)[: min(ends) if ends else None]
        if len(tokens) > 1:
            scored.append(ScoredDocument(document.name, tokens))
            left = None if left is None else left - len(tokens)
    if not scored:
        raise DataError(
            f"no text to score in {', '.join(selection.data)}.\n"
            "  Every document is empty, or one token long.\n"
            "  Give texts with --data, or a larger --max-tokens."
        )
    return scored, inputs


def _check(tasks: Sequence[str], lengths: Sequence[int] | None, stride: int) -> None:
    if not tasks:
        raise DataError(f"no task given.\n  Known: {', '.join(TASKS)}.")
    for task in tasks:
        if task not in TASKS:
            raise DataError(unknown("task", task, TASKS))
    for length in (stride, *(lengths or ())):
        if length < 2:
            raise DataError(f"a window or stride of {length} tokens scores nothing.\n  Give at least 2.")


def _warn(checkpoint: Checkpoint, lengths: Sequence[int], scored: Sequence[ScoredDocument], progress: Progress) -> None:
    window = checkpoint.rope.window.target
    beyond = [str(length) for length in lengths if length > window]
    if beyond:
        progress.warn(
            f"the model's window is {window} tokens; {', '.join(beyond)} lie beyond it, and their rows say so."
        )
    shorter = sum(len(document.tokens) < max(lengths) for document in scored)
    if shorter:
        progress.warn(
            f"{shorter} of {len(scored)} documents are shorter than the longest window, {max(lengths)} tokens: "
            "they are scored whole, with less context."
        )
