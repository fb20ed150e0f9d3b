"""Measuring, and showing what was measured."""

from pathlib import Path
from typing import Annotated

import typer

from ropewalk.answers import show
from ropewalk.arguments import maybe_memory, maybe_tokens, token_list, words
from ropewalk.checkpoint.output import require_outside
from ropewalk.commands.guard import NOT_AS_MEANT, console, verb
from ropewalk.commands.options import (
    AsJson,
    Data,
    Device,
    Dtype,
    Model,
    Out,
    Resume,
    Seed,
)
from ropewalk.progress import TerminalProgress
from ropewalk.record import as_json as json_text


@verb
def evaluate(
    model: Model,
    out: Out,
    data: Data = None,
    tasks: Annotated[
        str,
        typer.Option(
            "--tasks",
            help="Comma-separated: perplexity, passkey (the paper's), passkey-near-start, passkey-anywhere, "
            "passkey-landmark, boolq, piqa, race-middle, race-high (race: both), winogrande, govreport.",
        ),
    ] = "perplexity,passkey",
    lengths: Annotated[
        str | None, typer.Option("--lengths", help="Windows in tokens, comma-separated; the longest is the passkey's.")
    ] = None,
    stride: Annotated[int, typer.Option("--stride", help="The paper's is 256.")] = 256,
    also: Annotated[
        str | None,
        typer.Option(
            "--also",
            help="Other definitions of perplexity, to stand beside published figures: window-means (YaRN), truncated "
            "(YaRN --truncate), disjoint (lm_eval), every-token (LongLoRA).",
        ),
    ] = None,
    windows_sampled: Annotated[
        int | None,
        typer.Option("--windows-sampled", help="Estimate perplexity from N windows drawn at random.", min=2),
    ] = None,
    max_tokens: Annotated[str | None, typer.Option("--max-tokens", help="Score at most N tokens in all.")] = None,
    documents: Annotated[int | None, typer.Option("--documents", help="Score the first so many texts.", min=1)] = None,
    min_tokens: Annotated[
        str | None, typer.Option("--min-tokens", help="Draw the texts at random from those of at least N tokens.")
    ] = None,
    truncate_tokens: Annotated[str | None, typer.Option("--truncate-tokens", help="Cut each text at N tokens.")] = None,
    task_files: Annotated[
        Path | None,
        typer.Option(
            "--task-files",
            help="Folder with boolq.jsonl, piqa.jsonl, ... gov_report.jsonl. Default: the hub's data sets.",
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", help="Items of each short task, summaries.", min=1)] = None,
    sampler: Annotated[
        str, typer.Option("--sampler", help="For summaries: paper (T 0.5, top-p 0.95) or greedy.")
    ] = "paper",
    against: Annotated[
        Path | None,
        typer.Option("--against", help="The base model's evaluation: changes of its short tasks are shown."),
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option("--max-drop", help="Exit 1 if a short task falls by more points than this, beyond noise.", min=0),
    ] = None,
    allow_overlap: Annotated[
        bool,
        typer.Option(
            "--allow-overlap", help="Measure on texts the checkpoint was tuned on, too; the record names them."
        ),
    ] = False,
    memory_budget: Annotated[
        str | None,
        typer.Option("--memory-budget", help="For what one pass holds of a text: 4GB. Default: half of what is free."),
    ] = None,
    dtype: Dtype = None,
    device: Device = None,
    seed: Seed = 0,
    sequence_parallel: Annotated[
        int,
        typer.Option(
            "--sequence-parallel",
            help="Under torchrun: so many processes share each text, and the weights. For windows beyond one device.",
        ),
    ] = 1,
    resume: Resume = False,
    as_json: AsJson = False,
) -> None:
    """Measure MODEL: sliding-window perplexity, passkey retrieval and k_max, each with its uncertainty.

    The short tasks show what the original window lost: measure the base first, then the longer model --against it.
    """
    from dataclasses import asdict

    from ropewalk.evals.evaluate import evaluate as evaluated
    from ropewalk.tables import result_table

    progress = TerminalProgress(console)
    if not data and "perplexity" in tasks:
        progress.note("no --data: scoring the built-in held-out modules of the standard library")
    run = evaluated(
        model, out=out, data=data or ["pilot"], tasks=words(tasks), lengths=None if lengths is None else token_list(lengths, "--lengths"),
        stride=stride, also=words(also or ""), windows_sampled=windows_sampled, max_tokens=maybe_tokens(max_tokens, "--max-tokens"),
        document_count=documents, min_tokens=maybe_tokens(min_tokens, "--min-tokens"), truncate_tokens=maybe_tokens(truncate_tokens, "--truncate-tokens"),
        task_files=task_files, limit=limit, sampler=sampler, against=against, max_drop=max_drop, allow_overlap=allow_overlap,
        memory_budget=maybe_memory(memory_budget, "--memory-budget"), dtype=dtype, device=device, seed=seed,
        sequence_parallel=sequence_parallel, resume=resume, progress=progress,
    )  # fmt: skip
    if as_json:
        show(json_text(asdict(run)))
    else:
        show(result_table(run))
    if failed := run.resolved.get("gate", {}).get("failed"):
        console.print(f"beyond noise, more than {max_drop} points below the base: {', '.join(failed)}", style="red")
        raise typer.Exit(NOT_AS_MEANT)


@verb
def report(
    runs: Annotated[list[Path], typer.Argument(help="Folders made by evaluate, tune or run.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", help="The page to write, such as page.html.", show_default=False)],
) -> None:
    """One self-contained page from any number of runs: pictures, a table, protocols and versions."""
    from ropewalk.reports.page import write_report

    for run in runs:
        require_outside(out, run.parent if run.is_file() else run)
    show(str(write_report(runs, out)))
