"""What several verbs take, said once."""

from pathlib import Path
from typing import Annotated

import typer

from ropewalk.commands.guard import mistakes
from ropewalk.given import MOST_SEED
from ropewalk.rope.methods import METHODS, TABLE_METHOD
from ropewalk.text.documents import require_texts

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


def no_model(given: list[str] | None) -> list[str] | None:
    """Looked at while words are read: of a model taken for a text, the parser would say only that MODEL is missing."""
    with mistakes():
        require_texts(given or ())
    return given


Data = Annotated[
    list[str] | None,
    typer.Option(
        "--data",
        callback=no_model,
        help="Texts: one or more files (txt, jsonl, parquet) or folders; hf:org/name or hf:org/name:config:split for a "
        "data set of the hub, hf:./folder for one here; 'pilot' (the default) for the built-in ones.",
    ),
]
Seed = Annotated[int, typer.Option("--seed", help="Same seed, same numbers.", min=0, max=MOST_SEED)]
Dtype = Annotated[
    str | None,
    typer.Option("--dtype", help="float32, bfloat16, float16 or float64. Default: bfloat16 on a GPU, else float32."),
]
Device = Annotated[str | None, typer.Option("--device", help="cpu, cuda, cuda:1 ... Default: a GPU if there is one.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with an unfinished folder.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the record as JSON on standard output.")]
