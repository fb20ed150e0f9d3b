"""Verbs that tell what will be: what tuning needs, what theory promises, which divisors suit."""

from typing import Annotated

import typer

from ropewalk.answers import show
from ropewalk.arguments import device_memory, maybe_tokens, tokens
from ropewalk.commands.guard import console, verb
from ropewalk.commands.options import AsJson, Data, Device, Dtype, Model, Out, Resume, Seed, To
from ropewalk.progress import TerminalProgress
from ropewalk.record import as_json as json_text


@verb
def plan(
    model: Annotated[
        str,
        typer.Argument(
            help="Folder (config.json suffices), hub id, 'pilot', or llama-7b, -13b, -33b, -65b.", show_default=False
        ),
    ],
    to: Annotated[str | None, typer.Option("--to", help="Target window in tokens. Default: the window.")] = None,
    gpus: Annotated[int, typer.Option("--gpus", help="How many.")] = 1,
    gpu_memory: Annotated[
        str | None, typer.Option("--gpu-memory", help="Of each: 80GB, 80GiB or 80. Default: what the type has.")
    ] = None,
    gpu_type: Annotated[str, typer.Option("--gpu-type", help="a100, h100, h200, or cpu: this machine.")] = "a100",
    steps: Annotated[int, typer.Option("--steps", help="Optimizer steps.")] = 1000,
    batch_tokens: Annotated[str | None, typer.Option("--batch-tokens", help="Global batch, as in tune.")] = None,
    adapter: Annotated[str, typer.Option("--adapter", help="full, lora or lora+.")] = "full",
    dtype: Dtype = None,
    as_json: AsJson = False,
) -> None:
    """Tell what tuning MODEL at a target will need of memory and time, before anything is fetched or run."""
    from ropewalk.planning.forecast import plan as planned
    from ropewalk.planning.words import plan_lines, plan_table

    answer = planned(
        model, to=maybe_tokens(to, "--to"), gpus=gpus, gpu_memory=None if gpu_memory is None else device_memory(gpu_memory, "--gpu-memory"),
        gpu_type=gpu_type, steps=steps, batch_tokens=maybe_tokens(batch_tokens, "--batch-tokens"), adapter=adapter, dtype=dtype,
    )  # fmt: skip
    if as_json:
        show(json_text(answer))
    else:
        show(plan_table(answer))
        show(plan_lines(answer))


@verb
def bounds(
    head_dim: Annotated[int, typer.Option("--head-dim", help="Rotated dimensions of a head; LLaMA's are 128.")] = 128,
    theta: Annotated[float, typer.Option("--theta", help="rope_theta of config.json; LLaMA's is 10000.")] = 10_000.0,
    window: Annotated[str, typer.Option("--window", help="Original window in tokens; LLaMA's is 2048.")] = "2048",
    fits: Annotated[int, typer.Option("--fits", help="Seeds of Figure 2's random fit; 0: none.", min=0)] = 20,
    as_json: AsJson = False,
) -> None:
    """Tell what the paper's theory promises for a size of head, as printed and as it holds (docs/window.md)."""
    from ropewalk.theory.answer import bounds as bounded
    from ropewalk.theory.words import bounds_lines, bounds_table, fits_table

    answer = bounded(head_dim=head_dim, theta=theta, window=tokens(window, "--window"), fits=fits)
    if as_json:
        show(json_text(answer))
        return
    show(bounds_table(answer))
    show(bounds_lines(answer))
    if answer["fits"]:
        show(fits_table(answer["window"], answer["fits"]))


@verb
def search(
    model: Model,
    to: To,
    out: Out,
    data: Data = None,
    budget: Annotated[int, typer.Option("--budget", help="Candidates to try; LongRoPE took 1344.")] = 400,
    windows: Annotated[int, typer.Option("--windows", help="Documents that each is judged on, of N tokens.")] = 5,
    dtype: Dtype = None,
    device: Device = None,
    seed: Seed = 0,
    resume: Resume = False,
    as_json: AsJson = False,
) -> None:
    """Find one divisor a rotary pair for a target, without tuning (LongRoPE), for extend --method longrope."""
    from dataclasses import asdict

    from ropewalk.searching.search import search as searched

    progress = TerminalProgress(console)
    if not data:
        progress.note("no --data: searching on the built-in corpus, Python sources")
    run = searched(
        model, to=tokens(to, "--to"), out=out, data=data or ["pilot"], budget=budget, windows=windows, dtype=dtype, device=device,
        seed=seed, resume=resume, progress=progress,
    )  # fmt: skip
    if as_json:
        show(json_text(asdict(run)))
        return
    found = ", ".join(f"{row.name.removeprefix('search/')} {row.value:.3f}" for row in run.results)
    show(
        f"perplexity on the texts searched on: {found}\nropewalk extend {model} --to {to} {run.resolved['extend_with']} --out ..."
    )
