"""LongRoPE's search beside PI, NTK and YaRN, without tuning and at an equal budget of candidates.

`ropewalk search` tries so many sets of divisors; NTK and YaRN get as many tries at their own options (theta; beta_fast,
beta_slow and the attention factor), of which the first is their default and the others are drawn at random, on the same
texts by the same loss; their defaults stand beside them. PI has nothing to choose. Each winner is then measured on held-out documents, whose first tokens are scored whole, and
compared with the searched one document by document. Resumable: what was tried is not tried again.

    python paper/search.py --model pilot --to 2048 --budget 400
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from drawing import options
from options import folder, require_counts, run
from part import Part, Table, write_part

from ropewalk.arguments import tokens
from ropewalk.checkpoint.folder import open_checkpoint
from ropewalk.evals.documents import Selection, scored_documents
from ropewalk.evals.pieces import Pieces
from ropewalk.model.load import load_model
from ropewalk.progress import silent
from ropewalk.record import write_text
from ropewalk.rope.frequencies import base_frequencies
from ropewalk.rope.options import rescaled_by
from ropewalk.rope.spec import RopeSpec
from ropewalk.searching.evolution import Candidate, divisors
from ropewalk.searching.objective import Objective, windows_of
from ropewalk.searching.search import search

STRETCH = 8  # of the longest target of the tables


@dataclass(frozen=True)
class Contender:
    """One method with its best options, and how many were tried."""

    name: str
    said: str
    tried: int
    candidate: Candidate


def candidate_of(rope: RopeSpec, to: int, method: str, given: dict) -> Candidate:
    frequencies = rescaled_by(method, rope, to, given).frequencies()
    base_F = base_frequencies(rope.theta, rope.rotary_dim)
    return Candidate(divisors(frequencies.inverse_F, base_F), frequencies.attention_factor)


def ntk_options(random: np.random.Generator, rope: RopeSpec, to: int) -> dict:
    """A theta between the base's and what twice the stretch asks for, evenly in its logarithm."""
    d = rope.rotary_dim
    return {
        "theta": rope.theta * float(np.exp(random.uniform(0.01, math.log(2 * to / rope.window.original) * d / (d - 2))))
    }


def yarn_options(random: np.random.Generator, rope: RopeSpec, to: int) -> dict:
    """Ends of the ramp from a quarter turn to four times as many turns as its own, and a temperature of up to 1.6."""
    slow = float(np.exp(random.uniform(math.log(0.25), math.log(8))))
    fast = slow * float(np.exp(random.uniform(math.log(1.2), math.log(128))))
    return {"beta_slow": slow, "beta_fast": fast, "attention_factor": float(random.uniform(1, 1.6))}


def defaults_of(method: str, rope: RopeSpec, to: int) -> dict:
    """A method's own choice in the options that are drawn: for `abf`, the theta that NTK takes."""
    if method == "abf":
        d = rope.rotary_dim
        return {"theta": rope.theta * (to / rope.window.original) ** (d / (d - 2))}
    return {}


def tried_at_random(
    name: str, draw: Callable[..., dict], method: str, rope: RopeSpec, arguments, judge: Objective, out: Path
) -> Contender:
    """The best of `budget` tries of a method's options: its defaults, which are the first, and draws of them."""
    random, pieces = np.random.default_rng(arguments.seed), Pieces(out / f"{name.replace(', ', '-')}.jsonl")
    best: tuple[float, dict] | None = None
    for number in range(arguments.budget):
        given = draw(random, rope, arguments.to) if number else defaults_of(method, rope, arguments.to)
        key = json.dumps(given, sort_keys=True)
        if key not in pieces:
            pieces.add(key, judge(candidate_of(rope, arguments.to, method, given)))
        if best is None or pieces[key] < best[0]:
            best = (pieces[key], given)
    assert best is not None
    said = ", ".join(f"{option} {value:.4g}" for option, value in best[1].items()) or "its defaults"
    return Contender(name, said, arguments.budget, candidate_of(rope, arguments.to, method, best[1]))


def contenders(rope: RopeSpec, arguments, judge: Objective, out: Path) -> list[Contender]:
    run = search(
        arguments.model, to=arguments.to, out=out / "searched", data=arguments.data, budget=arguments.budget,
        windows=arguments.windows, seed=arguments.seed, device="cpu", dtype="float32", resume=True,
    )  # fmt: skip
    found = Candidate(tuple(run.resolved["factors"]), run.resolved["attention_factor"])
    defaults = [
        Contender(name, "as it is", 1, candidate_of(rope, arguments.to, name, {})) for name in ("pi", "ntk", "yarn")
    ]
    return [
        *defaults,
        tried_at_random("ntk, searched", ntk_options, "abf", rope, arguments, judge, out),
        tried_at_random("yarn, searched", yarn_options, "yarn", rope, arguments, judge, out),
        Contender("longrope", f"attention_factor {found.attention_factor:.4g}", arguments.budget, found),
    ]


def table(found: list[Contender], on_search: list[float], held_out: np.ndarray) -> Table:
    """`held_out` is (contenders, documents), mean losses; the last contender is what is compared with."""
    head = ["method", "options", "tried", "texts searched on", "held out", "longrope is better by", "of documents"]
    rows = []
    documents = held_out.shape[1]
    for contender, loss, losses in zip(found, on_search, held_out, strict=True):
        gain = losses - held_out[-1]
        error = f" ± {gain.std(ddof=1) / math.sqrt(documents):.3f}" if documents > 1 else ""
        last = contender is found[-1]
        better = "" if last else f"{gain.mean():.3f}{error} nats"
        wins = "" if last else f"{int((gain > 0).sum())} of {documents}"
        rows.append(
            [contender.name, contender.said, str(contender.tried), f"{math.exp(loss):.3f}", f"{math.exp(losses.mean()):.3f}",
             better, wins]
        )  # fmt: skip
    return Table("Perplexity, untuned", head, rows)


def finding(found: list[Contender], held_out: np.ndarray, to: int) -> str:
    """Of which contenders the searched divisors are better held out, by two standard errors, and of which not."""
    better, others = [], []
    for contender, losses in zip(found[:-1], held_out, strict=False):
        gain = losses - held_out[-1]
        error = gain.std(ddof=1) / math.sqrt(len(gain)) if len(gain) > 1 else math.inf
        (better if gain.mean() > 2 * error else others).append(contender.name)
    return f"Untuned at {to} tokens and held out, the searched divisors beat {', '.join(better) or 'none of them'}" + (
        f"; not, or not by two standard errors, {', '.join(others)}." if others else "."
    )


def main(given: list[str] | None = None) -> None:
    parser = options(__doc__)
    parser.add_argument("--model", default="pilot")
    parser.add_argument("--to", default=None, help=f"target in tokens, such as 2k ({STRETCH} times the model's window)")
    parser.add_argument("--data", nargs="+", default=["pilot"], help="texts to search on (the pilot's tuning corpus)")
    parser.add_argument("--held-out", nargs="+", default=["pilot"], help="texts to measure on (its held-out modules)")
    parser.add_argument("--budget", type=int, default=400, help="candidates of each method (%(default)s)")
    parser.add_argument("--windows", type=int, default=5, help="documents to search on (%(default)s)")
    parser.add_argument("--documents", type=int, default=12, help="held-out documents at most (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(given)
    require_counts(arguments, "budget", "windows", "documents")
    checkpoint = open_checkpoint(arguments.model)
    arguments.to = tokens(arguments.to) if arguments.to else STRETCH * checkpoint.window.target
    folder(arguments.out, "--out")
    out = arguments.out / f"search-{Path(arguments.model).name}-{arguments.to}"
    out.mkdir(parents=True, exist_ok=True)
    loaded = load_model(checkpoint, dtype="float32", device="cpu")
    rope = loaded.checkpoint.rope
    windows, _ = windows_of(loaded.codec, arguments.data, arguments.to, arguments.windows, arguments.seed)
    judge = Objective(loaded, windows)
    found = contenders(rope, arguments, judge, out)
    on_search = [judge(contender.candidate) for contender in found]
    selection = Selection(
        data=tuple(arguments.held_out), documents=arguments.documents, min_tokens=arguments.to,
        truncate_tokens=arguments.to, seed=arguments.seed,
    )  # fmt: skip
    documents, _ = scored_documents(loaded.codec, selection, silent)
    each = [Objective(loaded, [document.tokens]) for document in documents]
    held_out = np.array([[one(contender.candidate) for one in each] for contender in found])
    made = table(found, on_search, held_out)
    write_text(out / "table.md", made.markdown())
    said = [finding(found, held_out, arguments.to)]
    title = "Beyond the paper: a search for divisors"
    lede = f"LongRoPE's search beside the other methods at an equal budget of {arguments.budget} candidates, without tuning."
    write_part(Part("search", title, lede, tables=[made], findings=said), arguments.out)


if __name__ == "__main__":
    run(main)
