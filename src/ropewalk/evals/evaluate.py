"""`ropewalk evaluate`: one model, some questions, one folder with a record."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ropewalk.checkpoint.folder import Checkpoint, open_checkpoint
from ropewalk.checkpoint.output import finished_run, make_folder, require_outside
from ropewalk.checkpoint.subject import subject_of
from ropewalk.checkpoint.trained_on import trained_on
from ropewalk.checkpoint.weights import weights_of
from ropewalk.errors import DataError
from ropewalk.evals.begun import begun_in, require_same
from ropewalk.evals.changes import changes, failed_gate
from ropewalk.evals.documents import (
    ScoredDocument,
    Selection,
    require_unread,
    scored_documents,
    texts_of,
    texts_sha256,
    trained_among,
)
from ropewalk.evals.opening import engine_in_words, layout_for_record, opened, require_shareable
from ropewalk.evals.perplexity import PerplexityPlan
from ropewalk.evals.pieces import Pieces
from ropewalk.evals.questions import (
    DEFAULT_TASKS,
    PASSKEYS,
    Asked,
    Questions,
    asked_reports,
    check,
    default_lengths,
    measures,
    require_positions,
    task_inputs,
)
from ropewalk.evals.task_files import task_names
from ropewalk.evals.windows import PAPER_STRIDE
from ropewalk.given import require_budget, require_seed, several
from ropewalk.model.agreement import require_same_texts
from ropewalk.model.load import chosen_device, describe_device, load_codec
from ropewalk.model.ranks import WORK, Layout, joined, recorded
from ropewalk.pilot.corpus import PILOT
from ropewalk.progress import Progress, silent
from ropewalk.record import EvalResult, Run, read_run


def evaluate(
    model: str | Path,
    *,
    out: str | Path,
    data: str | Path | Sequence[str | Path] = (PILOT,),
    tasks: Sequence[str] = DEFAULT_TASKS,
    lengths: int | Sequence[int] | None = None,
    stride: int = PAPER_STRIDE,
    also: Sequence[str] = (),
    windows_sampled: int | None = None,
    max_tokens: int | None = None,
    document_count: int | None = None,
    min_tokens: int | None = None,
    truncate_tokens: int | None = None,
    task_files: str | Path | None = None,
    limit: int | None = None,
    sampler: str = "paper",
    against: str | Path | None = None,
    max_drop: float | None = None,
    allow_overlap: bool = False,
    memory_budget: int | None = None,
    dtype: str | None = None,
    device: str | None = None,
    seed: int = 0,
    sequence_parallel: int = 1,
    resume: bool = False,
    progress: Progress = silent,
) -> Run:
    """Measures `model` and leaves a record in the new folder `out`; gives the record.

    `data` are texts (files, folders, data sets of the hub as "hf:org/name"), or "pilot" for the built-in held-out
    modules; none that the checkpoint was tuned on, unless `allow_overlap`. `lengths` are perplexity
    windows in tokens (None: powers of two from 256 to the model's window, and the window); the longest is also the
    passkey's target. `also` names further definitions of perplexity (`windows.DEFINITIONS`), and `windows_sampled`
    estimates each from so many windows drawn at random. `document_count` takes the first so many texts, or with
    `min_tokens` so many at random of those that long; `truncate_tokens` cuts each, and `max_tokens` bounds them all
    together, in order. `task_files` is a folder with local files of the short tasks, `limit` the items of each taken.
    `against` is the folder of the base model's evaluation, and a task that falls by more than `max_drop` points beyond
    noise fails the gate, which `resolved["gate"]` tells. `memory_budget` is in bytes (None: half of what is free).
    Raises RopewalkError for what the caller can mend.

    In processes that torchrun started, each calls this with the same arguments and holds the whole model; they share out
    documents, windows and prompts, and the rows are those of one process to the last bit, where both have the same
    `resolved["batch_tokens"]` and as many threads. With `sequence_parallel` so many of them share each text and the
    weights, for windows that one device has no room for; sums are then of another order, and rows equal to rounding.

    >>> run = evaluate("pilot", tasks=["perplexity"], lengths=[64, 256], max_tokens=1024, out=folder / "measured")
    >>> [(row.metric, row.length, row.count) for row in run.results if row.name == "perplexity"]
    [('perplexity', 64, 1008), ('perplexity', 256, 1020)]
    """
    out, data, tasks, also = Path(out), several(data), several(tasks), several(also)
    lengths = None if lengths is None else several(lengths)
    require_seed(seed)
    require_budget(memory_budget)
    given: dict[str, Any] = {
        "model": str(model), "data": [str(d) for d in data], "tasks": tasks,
        "lengths": lengths, "stride": stride, "also": also,
        "windows_sampled": windows_sampled, "max_tokens": max_tokens, "documents": document_count,
        "min_tokens": min_tokens, "truncate_tokens": truncate_tokens,
        "task_files": None if task_files is None else str(task_files), "limit": limit, "sampler": sampler,
        "against": None if against is None else str(against), "max_drop": max_drop, "memory_budget": memory_budget,
        "allow_overlap": allow_overlap, "dtype": dtype, "device": device, "seed": seed,
    }  # fmt: skip
    ranks = joined(chosen_device(device), talk="cpu" if sequence_parallel == 1 else None, patience=WORK)
    ranks = ranks.over(Layout(ranks.count // max(1, sequence_parallel), sequence_parallel))
    progress = progress if ranks.is_first else silent
    finished = ranks.first(lambda: finished_run(out, "evaluate", given, resume=resume))
    if ranks.most(finished is not None):
        return finished or read_run(out)
    checkpoint = open_checkpoint(model)
    require_outside(out, checkpoint.folder)
    windows = default_lengths(checkpoint.window.target) if lengths is None else tuple(sorted(set(lengths)))
    require_positions(checkpoint, windows)
    questions = _questions(given, windows)
    check(questions, given)
    require_shareable(tasks, sequence_parallel)
    if against is not None and Path(against).resolve() == out.resolve():
        raise DataError(f"{out} cannot be compared with itself.\n  --against is the folder of the base's evaluation.")
    base = None if against is None else _base(Path(against), questions)
    codec = load_codec(checkpoint)
    selection = Selection(
        data=tuple(map(str, data)), documents=document_count, min_tokens=min_tokens, truncate_tokens=truncate_tokens,
        max_tokens=max_tokens, seed=seed,
    )  # fmt: skip
    scored, inputs = scored_documents(codec, selection, progress) if "perplexity" in tasks else ([], [])
    files = task_inputs(questions)
    require_same_texts(ranks, texts_sha256(scored, files))
    inputs += files
    digests = trained_on(checkpoint.folder)
    overlap = trained_among(scored, asked_reports(questions) if digests else [], digests)
    if not allow_overlap:
        require_unread(overlap, checkpoint.folder)
    work = measures(questions, codec, checkpoint, scored, progress)
    begun = begun_in(out, inputs)
    if {"perplexity", *PASSKEYS} & set(tasks):
        _warn(checkpoint, windows, scored, progress)
    loaded, scorer = opened(
        checkpoint, ranks, dtype=dtype, device=device, memory_budget=memory_budget,
        batch_tokens=begun.resolved["batch_tokens"] if begun else None,
    )  # fmt: skip
    run = Run(
        command="evaluate",
        given=given,
        resolved={
            **_resolved(questions, checkpoint),
            "documents": texts_of(scored),
            "tuned_on": overlap,
            "bos": "as the tokenizer adds it, once a document" if codec.bos else "none: the tokenizer adds none",
            "batch_tokens": scorer.batch_tokens,
            "engine": engine_in_words(scorer, ranks),
            **layout_for_record(ranks),
        },
        ropes={"model": checkpoint.positions_for_record()},
        seed=seed,
        device=describe_device(loaded.device, loaded.model.dtype),
        inputs=inputs,
    )
    if begun is not None:
        require_same(begun, run, out)
    ranks.first(lambda: make_folder(out))
    with recorded(run, out, ranks):
        asked = Asked(loaded, scorer, out, Pieces(out / "pieces.jsonl", ranks), progress)
        for measure in work:
            run.results += measure(asked)
        if base is not None:
            _compare(run, base.results, max_drop)
    return run


def _questions(given: dict[str, Any], windows: tuple[int, ...]) -> Questions:
    return Questions(
        tasks=tuple(given["tasks"]), lengths=windows, limit=given["limit"], sampler=given["sampler"], seed=given["seed"],
        task_files=None if given["task_files"] is None else Path(given["task_files"]),
        perplexity=PerplexityPlan(
            lengths=windows, stride=given["stride"], also=tuple(given["also"]),
            windows_sampled=given["windows_sampled"], seed=given["seed"],
        ),
    )  # fmt: skip


def _resolved(questions: Questions, checkpoint: Checkpoint) -> dict[str, Any]:
    """What the record says of the questions and the model, apart from the texts and how they are read."""
    return {
        "subject": subject_of(checkpoint),
        "tasks": list(questions.tasks),
        "lengths": list(questions.lengths),
        "stride": questions.perplexity.stride,
        "weights": weights_of(checkpoint),
    }


def _base(folder: Path, questions: Questions) -> Run:
    """The base model's record. Raises DataError when it lacks a task that is to be compared."""
    base = read_run(folder)
    there = {row.name for row in base.results if row.metric == "accuracy" and "items" in row.details}
    tasks = task_names(questions.short_tasks) if questions.short_tasks else []
    lacking = [name for name in tasks if name not in there]
    if lacking or not tasks:
        raise DataError(
            f"nothing to compare with {folder}: it has no result for {', '.join(lacking) or 'a short task'}.\n"
            "  --against compares the items of short tasks that are right or wrong, one by one.\n"
            "  Measure the base with the same --tasks first; RULER's and LongBench's scores are not compared."
        )
    same = {"limit": questions.limit, "task_files": questions.task_files and str(questions.task_files)}
    for name, value in same.items():
        if base.given.get(name) != value and (name == "limit" or not (value and base.given.get(name))):
            raise DataError(
                f"the base was measured with --{name.replace('_', '-')} {base.given.get(name)}, this model with {value}.\n"
                "  A change is between two measurements of the same items.\n"
                "  Give both the same."
            )
    return base


def _compare(run: Run, base: Sequence[EvalResult], max_drop: float | None) -> None:
    rows = changes(base, run.results, max_drop)
    run.results += rows
    if max_drop is not None:
        run.resolved["gate"] = {"max_drop": max_drop, "failed": [row.name for row in failed_gate(rows, max_drop)]}


def _warn(checkpoint: Checkpoint, lengths: Sequence[int], scored: Sequence[ScoredDocument], progress: Progress) -> None:
    window = checkpoint.window.target
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
