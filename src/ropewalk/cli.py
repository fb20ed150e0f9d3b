"""The command line: one function a verb, each a thin layer over the function of the same name in Python."""

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from ropewalk.answers import show
from ropewalk.arguments import device_memory, maybe_tokens, memory, numbers, spread_data, token_list, tokens, words
from ropewalk.errors import RankError, RopeError, RopewalkError
from ropewalk.launch import launched, rank_and_count, speaks
from ropewalk.names import printable
from ropewalk.progress import TerminalProgress
from ropewalk.record import as_json as json_text
from ropewalk.rope.methods import METHODS, TABLE_METHOD
from ropewalk.rope.options import parsed_options

INTERRUPTED = 130  # the shell's code for Ctrl-C
MISTAKE = 2
NOT_AS_MEANT = 1  # check: a runtime asked for would not serve what was written

app = typer.Typer(
    name="ropewalk",
    help=(
        "Lengthen the context window of a RoPE checkpoint, tune it briefly, and prove that it worked.\n\n"
        "MODEL is a folder as transformers saves it, a hub id (org/name), or 'pilot', the small model that ships with "
        "this package. N is a number of tokens: 8192 or 8k. Every --out is a new folder; an unfinished one goes on with "
        "--resume. Texts are .txt, .jsonl or .parquet files or folders of them, or 'pilot' for the built-in ones.\n\n"
        "Begin with: ropewalk run --to 1024 --out first"
    ),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
console = Console(stderr=True, quiet=rank_and_count()[0] > 0)  # of several ranks the first tells how the work goes
errors = Console(stderr=True)
SHARED = ("tune", "evaluate")  # verbs whose work several processes do together


Model = Annotated[str, typer.Argument(help="Folder, hub id (org/name) or 'pilot'.", show_default=False)]
Out = Annotated[Path, typer.Option("--out", help="New folder.", show_default=False)]
To = Annotated[str, typer.Option("--to", help="Target window in tokens: 8192 or 8k.", show_default=False)]
OneMethod = Annotated[
    str,
    typer.Option("--method", help=f"One of {', '.join(METHODS)}; {TABLE_METHOD} for GPT-2 and OPT, which have tables."),
]
Options = Annotated[
    list[str] | None,
    typer.Option("--option", help="NAME=VALUE of the method, repeatable: beta_fast=16, theta=5e5, factors=@FILE."),
]
Start = Annotated[
    str, typer.Option("--from", help="here: what MODEL is now; original: its base's own rotation, put back first.")
]
Data = Annotated[
    list[str] | None,
    typer.Option(
        "--data",
        help="Texts: one or more files (txt, jsonl, parquet) or folders; hf:org/name or hf:org/name:config:split for a "
        "data set of the hub, hf:./folder for one here; 'pilot' (the default) for the built-in ones.",
    ),
]
Seed = Annotated[int, typer.Option("--seed", help="Same seed, same numbers.")]
Dtype = Annotated[
    str | None,
    typer.Option("--dtype", help="float32, bfloat16, float16 or float64. Default: bfloat16 on a GPU, else float32."),
]
Device = Annotated[str | None, typer.Option("--device", help="cpu, cuda, cuda:1 ... Default: a GPU if there is one.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with an unfinished folder.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the record as JSON on standard output.")]


def verb(function: Callable[..., None]) -> Callable[..., None]:
    """Registers a verb; our errors are printed without a traceback and end with code 2, Ctrl-C with 130."""

    @functools.wraps(function)
    def guarded(*arguments: Any, **options: Any) -> None:
        try:
            with _one_of_several(function.__name__) if launched() else contextlib.nullcontext():
                function(*arguments, **options)
        except RopewalkError as error:
            if speaks(error):
                said = printable(f"{type(error).__name__}: {error}")
                errors.print(said, style="red", highlight=False, markup=False, soft_wrap=True)
            raise typer.Exit(MISTAKE) from None
        except (MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
            if speaks(error):
                errors.print(_out_of_memory(error), style="red", highlight=False, markup=False, soft_wrap=True)
            raise typer.Exit(MISTAKE) from None
        except KeyboardInterrupt as stopped:
            what = str(stopped) or "stopped"
            if speaks(stopped):
                errors.print(f"{what}; go on with --resume", highlight=False, markup=False, soft_wrap=True)
            raise typer.Exit(INTERRUPTED) from None

    return app.command(name=function.__name__.rstrip("_"))(guarded)


def _is_out_of_memory(error: BaseException) -> bool:
    """torch has a type of its own for a GPU's memory, and none for the host's."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "can't allocate memory" in str(error)
    )


def _out_of_memory(error: BaseException) -> str:
    said = (str(error).strip().splitlines() or ["the interpreter could not allocate"])[0]
    return (
        f"out of memory: {said}\n"
        "  What is computed at once was to fit what was free when it began; something else may have taken it since.\n"
        "  Give a smaller --memory-budget (tune, evaluate) or shorter lengths; `ropewalk plan` says what a tuning run "
        "needs.\n"
        "  What was done is kept: go on with --resume."
    )


@contextlib.contextmanager
def _one_of_several(name: str) -> Iterator[None]:
    """In a process that torchrun started: the loss of another is an error like ours, and the group ends with the verb."""
    from ropewalk.model.ranks import leave, lost_rank

    if name not in SHARED and (count := rank_and_count()[1]) > 1:
        raise RankError(
            f"{name} was started in {count} processes.\n"
            f"  torchrun is for verbs whose work several processes share: {', '.join(SHARED)}.\n"
            f"  Run it once: ropewalk {name} ..."
        )
    with lost_rank(lambda: "the work stopped on the way"):
        yield
        leave()


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
    answer = inspected(model, method=method, to=None if to is None else tokens(to), options=options, start=start)
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
        plan = planned_extension(model, tokens(to), method, options, start)
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
        model, to=tokens(to), out=out, method=method, options=options, start=start, progress=TerminalProgress(console)
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
        model, to=maybe_tokens(to), gpus=gpus, gpu_memory=None if gpu_memory is None else device_memory(gpu_memory),
        gpu_type=gpu_type, steps=steps, batch_tokens=maybe_tokens(batch_tokens), adapter=adapter, dtype=dtype,
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

    answer = bounded(head_dim=head_dim, theta=theta, window=tokens(window), fits=fits)
    if as_json:
        show(json_text(answer))
        return
    show(bounds_table(answer))
    show(bounds_lines(answer))
    if answer["fits"]:
        show(fits_table(answer["window"], answer["fits"]))


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
        length=None if length is None else tokens(length), learning_rate=learning_rate,
        batch_tokens=None if batch_tokens is None else tokens(batch_tokens), adapter=adapter,
        lora_rank=lora_rank, lora_alpha=lora_alpha, lora_targets=None if lora_targets is None else words(lora_targets),
        merge=not no_merge, dtype=dtype, device=device, seed=seed, save_every=save_every, keep_saves=keep_saves,
        resume=resume, track=[name for one in track or () for name in words(one)], progress=progress,
        sequence_parallel=sequence_parallel,
    )  # fmt: skip
    show(f"{out}: tuned for {run.resolved['steps']} steps, training loss {run.results[0].value:.3f}")


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
        typer.Option("--task-files", help="Folder with boolq.jsonl, piqa.jsonl ... Default: the hub's data sets."),
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
        model, out=out, data=data or ["pilot"], tasks=words(tasks), lengths=None if lengths is None else token_list(lengths),
        stride=stride, also=words(also or ""), windows_sampled=windows_sampled, max_tokens=maybe_tokens(max_tokens),
        document_count=documents, min_tokens=maybe_tokens(min_tokens), truncate_tokens=maybe_tokens(truncate_tokens),
        task_files=task_files, limit=limit, sampler=sampler, against=against, max_drop=max_drop, allow_overlap=allow_overlap,
        memory_budget=None if memory_budget is None else memory(memory_budget), dtype=dtype, device=device, seed=seed,
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
        model, to=tokens(to), out=out, data=data or ["pilot"], budget=budget, windows=windows, dtype=dtype, device=device,
        seed=seed, resume=resume, progress=progress,
    )  # fmt: skip
    if as_json:
        show(json_text(asdict(run)))
        return
    found = ", ".join(f"{row.name.removeprefix('search/')} {row.value:.3f}" for row in run.results)
    show(
        f"perplexity on the texts searched on: {found}\nropewalk extend {model} --to {to} {run.resolved['extend_with']} --out ..."
    )


@verb
def report(
    runs: Annotated[list[Path], typer.Argument(help="Folders made by evaluate, tune or run.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", help="The page to write, such as page.html.", show_default=False)],
) -> None:
    """One self-contained page from any number of runs: pictures, a table, protocols and versions."""
    from ropewalk.reports.page import write_report

    show(str(write_report(runs, out)))


@verb
def run(
    model: Annotated[str, typer.Argument(help="Folder, hub id (org/name) or 'pilot'.")] = "pilot",
    out: Out = ...,  # type: ignore[assignment]
    to: Annotated[
        str | None, typer.Option("--to", help="Targets, comma-separated. Default: four times the window.")
    ] = None,
    method: Annotated[str, typer.Option("--method", help="Arms, comma-separated.")] = "pi,yarn,none",
    data: Data = None,
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
        model, to=None if to is None else token_list(to), method=[m.strip() for m in method.split(",") if m.strip()],
        out=out, data=data or None, dtype=dtype, device=device, seed=seed,
        steps=None if steps is None else numbers("--steps", steps, int),
        learning_rate=None if learning_rate is None else numbers("--learning-rate", learning_rate, float), resume=resume, progress=progress,
    )  # fmt: skip
    show(comparison_table(out, record))
    show(f"page: {out / REPORT}\nto start over: rm -r {out}")


def main() -> None:
    app(spread_data(sys.argv[1:]))
