"""All of it in one call."""

from typing import Annotated

import typer

from ropewalk.answers import show
from ropewalk.arguments import numbers, token_list, words
from ropewalk.commands.guard import console, verb
from ropewalk.commands.options import Device, Dtype, Out, Resume, Seed, no_model
from ropewalk.progress import TerminalProgress


@verb
def run(
    model: Annotated[str, typer.Argument(help="Folder, hub id (org/name) or 'pilot'.")] = "pilot",
    out: Out = ...,  # type: ignore[assignment]
    to: Annotated[
        str | None, typer.Option("--to", help="Targets, comma-separated. Default: four times the window.")
    ] = None,
    method: Annotated[
        str, typer.Option("--method", help="Arms, comma-separated: methods that need no option.")
    ] = "pi,yarn,none",
    data: Annotated[
        list[str] | None,
        typer.Option(
            "--data",
            callback=no_model,
            help="Texts: one or more files (txt, jsonl, parquet) or folders, of which the last tenth is held out for "
            "evaluation; 'pilot' (the default) for the built-in ones.",
        ),
    ] = None,
    steps: Annotated[
        str | None,
        typer.Option(
            "--steps",
            help="Steps an arm: one number, or one for each target, comma-separated. Default: 1000; 150 below 100 M "
            "parameters.",
        ),
    ] = None,
    learning_rate: Annotated[
        str | None,
        typer.Option("--learning-rate", help="The same for the learning rate. Default: the recipe's for the size."),
    ] = None,
    dtype: Dtype = None,
    device: Device = None,
    seed: Seed = 0,
    resume: Resume = False,
) -> None:
    """The whole way: extend MODEL by each method, tune, measure against the base, and write one page."""
    from ropewalk.pipeline import REPORT
    from ropewalk.pipeline import run as piped
    from ropewalk.tables import comparison_table

    progress = TerminalProgress(console)
    record = piped(
        model, to=None if to is None else token_list(to, "--to"), method=words(method),
        out=out, data=data or None, dtype=dtype, device=device, seed=seed,
        steps=None if steps is None else numbers("--steps", steps, int),
        learning_rate=None if learning_rate is None else numbers("--learning-rate", learning_rate, float), resume=resume, progress=progress,
    )  # fmt: skip
    show(comparison_table(out, record))
    show(f"page: {out / REPORT}\nto start over: rm -r {out}")
