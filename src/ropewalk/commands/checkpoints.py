"""Verbs about a checkpoint as it is on disk: none of them loads a weight into a model."""

from typing import Annotated

import typer

from ropewalk.answers import show
from ropewalk.arguments import tokens
from ropewalk.commands.guard import NOT_AS_MEANT, console, verb
from ropewalk.commands.options import AsJson, Model, OneMethod, Options, Out, Start, To
from ropewalk.errors import RopeError
from ropewalk.progress import TerminalProgress
from ropewalk.record import as_json as json_text
from ropewalk.rope.methods import METHODS
from ropewalk.rope.options import parsed_options


@verb
def inspect(
    model: Model,
    method: Annotated[str | None, typer.Option("--method", help=f"One of {', '.join(METHODS)}.")] = None,
    to: Annotated[str | None, typer.Option("--to", help="Show what a target of N tokens would make of it.")] = None,
    option: Options = None,
    start: Start = "here",
    as_json: AsJson = False,
) -> None:
    """What a checkpoint's window and rotation are; with --to, what a method would make of them."""
    from ropewalk.inspection import inspect as inspected
    from ropewalk.tables import inspection_lines

    if to is None and (method is not None or option or start != "here"):
        raise RopeError(
            "--method, --option and --from have no effect without --to.\n  Give the target too, such as --to 8k."
        )
    options = parsed_options(method or "pi", option or ())
    answer = inspected(
        model, method=method, to=None if to is None else tokens(to, "--to"), options=options, start=start
    )
    show(json_text(answer) if as_json else "\n".join(inspection_lines(answer)))


@verb
def extend(
    model: Model,
    to: To,
    out: Out,
    method: OneMethod = "pi",
    option: Options = None,
    start: Start = "here",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be written, and write nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write MODEL with a longer window into a new folder. Takes a second: weights are linked, not copied."""
    from dataclasses import asdict

    from ropewalk.checkpoint.output import require_new
    from ropewalk.extension import extend as extended
    from ropewalk.extension import planned_extension

    options = parsed_options(method, option or ())
    if dry_run:
        require_new(out)
        plan = planned_extension(model, tokens(to, "--to"), method, options, start)
        content = {
            "out": str(out),
            "before": plan.before.in_words(),
            "after": plan.after.in_words(),
            "written_as": plan.form,
            "config": plan.config,
        }
        lines = f"{plan.before.in_words()}\n-> {plan.after.in_words()}\nwould be written as {plan.form}; nothing was written"
        show(json_text(content) if as_json else lines)
        return
    run = extended(
        model,
        to=tokens(to, "--to"),
        out=out,
        method=method,
        options=options,
        start=start,
        progress=TerminalProgress(console),
    )
    positions, form = run.ropes["after"], run.resolved["written_as"]["form"]
    after = positions.get("full_attention") or positions["learned_table"]
    line = f"{out}: window {after['original_window']} -> {after['window']} by {method}, written as {form}"
    show(json_text(asdict(run)) if as_json else line)


@verb
def check(
    model: Model,
    runtime: Annotated[
        list[str] | None, typer.Option("--runtime", help="Ask of this one only, repeatable; wrong or refused: exit 1.")
    ] = None,
    fix: Annotated[bool, typer.Option("--fix", help="First write config.json anew in both schemas, in place.")] = False,
    as_json: AsJson = False,
) -> None:
    """Tell how each serving runtime will read MODEL: exact, exact with a flag, silently wrong, or refused."""
    from dataclasses import asdict

    from ropewalk.checking import check as checked
    from ropewalk.tables import verdict_table

    verdicts = checked(model, runtimes=runtime or None, fix=fix)
    if as_json:
        show(json_text([asdict(verdict) for verdict in verdicts]))
    else:
        show(verdict_table(model, verdicts))
    if runtime and any(verdict.outcome in ("silently wrong", "refused") for verdict in verdicts):
        raise typer.Exit(NOT_AS_MEANT)


@verb
def export(
    model: Model,
    out: Out,
    to: Annotated[str, typer.Option("--to", help="gguf: one file for llama.cpp and what is built on it.")] = "gguf",
    dtype: Annotated[
        str | None,
        typer.Option("--dtype", help="Store matrices in float32, float16 or bfloat16. Default: as they are."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be written, and write nothing.")] = False,
) -> None:
    """Write MODEL as one GGUF file, its rotation in the words that llama.cpp reads."""
    from ropewalk.checkpoint.output import require_new
    from ropewalk.exporting.export import export as exported
    from ropewalk.exporting.export import planned_export

    if dry_run:
        require_new(out)
        plan = planned_export(model, to, dtype)
        show(f"{out / plan.file}: {len(plan.tensors)} tensors, {plan.nbytes / 2**20:.1f} MiB; nothing was written")
        return
    run = exported(model, to=to, out=out, dtype=dtype, progress=TerminalProgress(console))
    show(str(out / run.resolved["file"]))
