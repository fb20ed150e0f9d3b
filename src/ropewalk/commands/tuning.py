"""Tuning."""

from typing import Annotated

import typer

from ropewalk.answers import show
from ropewalk.arguments import maybe_memory, maybe_tokens, words
from ropewalk.commands.guard import console, verb
from ropewalk.commands.options import Data, Device, Dtype, Model, Out, Resume, Seed
from ropewalk.progress import TerminalProgress


@verb
def tune(
    model: Model,
    out: Out,
    data: Data = None,
    recipe: Annotated[
        str,
        typer.Option(
            "--recipe",
            help="paper: rows of the whole window. direct: the same for a rotation left as it was, the baseline. pose: "
            "rows of the original window whose positions skip over the longer one, for little memory. mixed: half of the "
            "rows in pieces of the original window, to keep it. summaries: reports and their summaries, ten epochs.",
        ),
    ] = "paper",
    packing: Annotated[
        str,
        typer.Option(
            "--packing",
            help="concatenated: attention reaches over the ends of documents, as in the paper. documents: it stays "
            "inside each.",
        ),
    ] = "concatenated",
    allow_short_documents: Annotated[
        bool,
        typer.Option(
            "--allow-short-documents",
            help="Tune even where no document is longer than the original window, and so none teaches a longer reach.",
        ),
    ] = False,
    steps: Annotated[
        int | None,
        typer.Option(
            "--steps", help="Optimizer steps. Default: the recipe's; the paper's 1000, which suffice at any size."
        ),
    ] = None,
    length: Annotated[
        str | None,
        typer.Option("--length", help="Training length. Default: the window; pose: the original one."),
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option("--learning-rate", help="Default: by size, 2e-5 for LLaMA 7B.")
    ] = None,
    batch_tokens: Annotated[
        str | None,
        typer.Option("--batch-tokens", help="Global batch. Default: 64 sequences; 4 below 100 M parameters."),
    ] = None,
    memory_budget: Annotated[
        str | None,
        typer.Option(
            "--memory-budget",
            help="For what a step takes beside weights, gradients and moments: 8GB. Default: most of what is free.",
        ),
    ] = None,
    adapter: Annotated[
        str,
        typer.Option("--adapter", help="full: every weight; lora: LoRA on attention; lora+: embeddings and norms too."),
    ] = "full",
    lora_rank: Annotated[int | None, typer.Option("--lora-rank", help="Default: 8.")] = None,
    lora_alpha: Annotated[float | None, typer.Option("--lora-alpha", help="Default: 16.")] = None,
    lora_targets: Annotated[
        str | None,
        typer.Option("--lora-targets", help="Linear layers, such as q_proj,v_proj. Default: all of attention's."),
    ] = None,
    no_merge: Annotated[
        bool, typer.Option("--no-merge", help="Leave peft's adapter folder in place of a whole checkpoint.")
    ] = False,
    dtype: Dtype = None,
    device: Device = None,
    seed: Seed = 0,
    save_every: Annotated[int, typer.Option("--save-every", help="Steps between saves.", min=1)] = 100,
    keep_saves: Annotated[
        int, typer.Option("--keep-saves", help="The newest so many saves stay; 0: none once it is done.", min=0)
    ] = 1,
    track: Annotated[
        list[str] | None,
        typer.Option(
            "--track",
            help="Show each step's figures in tensorboard, wandb or trackio too; comma-separated or repeated. Files stay in "
            "OUT (trackio: in its own folder); wandb sends them with WANDB_MODE=online, and not before.",
        ),
    ] = None,
    sequence_parallel: Annotated[
        int | None,
        typer.Option(
            "--sequence-parallel",
            help="Under torchrun: so many processes share each sequence. Default: as few as memory asks for.",
        ),
    ] = None,
    resume: Resume = False,
) -> None:
    """Fine-tune an extended checkpoint at its window. OUT is the tuned checkpoint; its saves lie in OUT/saves.

    Beside the bar and in OUT/log.jsonl: loss, tokens a second, the most memory held so far, and what share of the fastest
    matrix products of this machine, measured at the start, a step comes to.
    """
    from ropewalk.train.tune import tune as tuned

    progress = TerminalProgress(console)
    if not data and recipe != "summaries":
        progress.note("no --data: tuning on the built-in corpus, Python sources and passkey documents")
    run = tuned(
        model, out=out, data=data or ["pilot"], recipe=recipe, packing=packing,
        allow_short_documents=allow_short_documents, steps=steps,
        length=maybe_tokens(length, "--length"), learning_rate=learning_rate,
        batch_tokens=maybe_tokens(batch_tokens, "--batch-tokens"), adapter=adapter,
        lora_rank=lora_rank, lora_alpha=lora_alpha, lora_targets=None if lora_targets is None else words(lora_targets),
        merge=not no_merge, memory_budget=maybe_memory(memory_budget, "--memory-budget"), dtype=dtype, device=device, seed=seed, save_every=save_every, keep_saves=keep_saves,
        resume=resume, track=[name for one in track or () for name in words(one)], progress=progress,
        sequence_parallel=sequence_parallel,
    )  # fmt: skip
    show(f"{out}: tuned for {run.resolved['steps']} steps, training loss {run.results[0].value:.3f}")
