"""The command line: one function a verb, each a thin layer over the function of the same name in Python."""

import io
import sys
import time

import typer

from ropewalk.arguments import spread_data
from ropewalk.commands.ahead import bounds, plan, search
from ropewalk.commands.checkpoints import check, export, extend, inspect
from ropewalk.commands.guard import MISTAKE
from ropewalk.commands.measuring import evaluate, report
from ropewalk.commands.tuning import tune
from ropewalk.commands.whole import run
from ropewalk.launch import PATIENCE, rank_and_count

USAGE_ERROR: type[Exception] = typer.BadParameter.__mro__[1]  # typer has it in a module of another name in each version
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
for verb in (inspect, extend, check, plan, bounds, export, tune, evaluate, search, report, run):  # as --help lists them
    app.command(name=verb.__name__)(verb)


def main() -> None:
    for stream, otherwise in ((sys.stdout, "replace"), (sys.stderr, "backslashreplace")):
        if isinstance(stream, io.TextIOWrapper):  # a terminal of another encoding has no sign for all that is printed
            stream.reconfigure(errors=otherwise)
    arguments = spread_data(sys.argv[1:])
    if rank_and_count()[0] == 0:
        app(arguments)  # which exits
    try:
        code = app(arguments, standalone_mode=False)
    except USAGE_ERROR:  # every rank has the same arguments, and the first says what is wrong with them
        time.sleep(PATIENCE)  # torchrun ends the others as soon as one has failed
        code = MISTAKE
    sys.exit(code)
