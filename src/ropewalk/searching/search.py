"""`ropewalk search`: divisors for a longer window, found without tuning, for `extend --method longrope`."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ropewalk.checkpoint.folder import open_checkpoint
from ropewalk.checkpoint.output import finished_run, make_folder, require_outside
from ropewalk.checkpoint.subject import subject_of
from ropewalk.checkpoint.weights import weights_of
from ropewalk.errors import DataError, RopeError
from ropewalk.evals.begun import begun_in, require_same
from ropewalk.evals.pieces import Pieces
from ropewalk.given import require_seed, several
from ropewalk.model.load import describe_device, load_model
from ropewalk.pilot.corpus import PILOT
from ropewalk.progress import Progress, silent
from ropewalk.record import EvalResult, Run, write_json
from ropewalk.rope.frequencies import base_frequencies
from ropewalk.rope.options import rescaled_by
from ropewalk.rope.scalings import Unscaled
from ropewalk.rope.spec import RopeSpec
from ropewalk.searching.evolution import Candidate, Evolution, Space, divisors, falls
from ropewalk.searching.objective import Objective, windows_of

FACTORS, TRIED = "factors.json", "tried.jsonl"
KNOWN = ("pi", "ntk", "yarn")
LEAST_BUDGET = 10


def search(
    model: str | Path,
    *,
    to: int,
    out: str | Path,
    data: str | Path | Sequence[str | Path] = (PILOT,),
    budget: int = 400,
    windows: int = 5,
    dtype: str | None = None,
    device: str | None = None,
    seed: int = 0,
    resume: bool = False,
    progress: Progress = silent,
) -> Run:
    """Searches one divisor a pair and an attention factor for `model` at `to` tokens; leaves them in the new folder `out`.

    `budget` candidates are tried, each on `windows` documents of `to` tokens of `data` ("pilot": the built-in corpus for
    tuning). PI, NTK and YaRN, rounded to a hundredth, are among them, so that the result is no worse than they are on
    these texts; measure it on others. `out/factors.json` is what `extend --method longrope --option factors=@...` takes, and the record has the
    attention factor that goes with it. Every loss is kept as it is found, and `resume` goes on from there to the same
    result. Raises RopewalkError for what the caller can mend.

    >>> _ = (folder / "text.txt").write_text("def square(x): return x * x\\n" * 100)
    >>> run = search("pilot", to=512, data=[folder / "text.txt"], out=folder / "searched", budget=10, windows=1)
    >>> len(run.resolved["factors"]), run.results[0].value >= run.results[-1].value
    (16, True)
    """
    out, data = Path(out), [str(one) for one in several(data)]
    require_seed(seed)
    given: dict[str, Any] = {
        "model": str(model), "to": to, "data": data, "budget": budget, "windows": windows, "dtype": dtype,
        "device": device, "seed": seed,
    }  # fmt: skip
    if (finished := finished_run(out, "search", given, resume=resume)) is not None:
        return finished
    checkpoint = open_checkpoint(model)
    require_outside(out, checkpoint.folder)
    if budget < LEAST_BUDGET or windows < 1:
        raise DataError(
            f"a search of {budget} candidates on {windows} windows finds nothing.\n"
            f"  Expected at least {LEAST_BUDGET} candidates and 1 window.\n"
            "  Give a larger --budget or --windows; LongRoPE took 1344 and 5."
        )
    space, names = space_of(checkpoint.rope, to)
    loaded = load_model(checkpoint, dtype=dtype, device=device)
    texts, judged_on = windows_of(loaded.codec, data, to, windows, seed)
    begun = begun_in(out, judged_on.inputs)
    objective, evolution = Objective(loaded, texts), Evolution(space, budget, seed)
    run = Run(
        command="search",
        given=given,
        resolved={
            "subject": subject_of(checkpoint),
            "documents": judged_on.documents,
            "weights": weights_of(checkpoint),
            "population": evolution.population,
        },
        ropes={"before": checkpoint.positions_for_record()},
        seed=seed,
        device=describe_device(loaded.device, loaded.model.dtype),
        inputs=judged_on.inputs,
    )
    if begun is not None:
        require_same(begun, run, out)
    make_folder(out)
    with run.recorded(out):
        tried = Pieces(out / TRIED)
        with progress.bar("searching", budget) as bar:
            for candidate in evolution.candidates():
                if candidate.name not in tried:
                    tried.add(candidate.name, objective(candidate))
                evolution.tell(candidate, tried[candidate.name])
                bar.advance(1, best=math.exp(min(evolution.losses.values())))
        _conclude(run, out, evolution, space, names, to)
    return run


def space_of(rope: RopeSpec, to: int) -> tuple[Space, tuple[str, ...]]:
    """The space of a target, beginning with what the methods make of it; and their names.

    Raises RopeError for a window that is scaled already, or a target that is not above it.
    """
    if not isinstance(rope.scaling, Unscaled):
        raise RopeError(
            f"cannot search from a window that is already scaled with {rope.scaling.rope_type}.\n"
            "  Divisors are of the rotation that the model was pretrained with.\n"
            "  Start from the unscaled base checkpoint."
        )
    base_F = base_frequencies(rope.theta, rope.rotary_dim)
    known = []
    for name in KNOWN:
        found = rescaled_by(name, rope, to).frequencies()
        known.append(Candidate(divisors(found.inverse_F, base_F), found.attention_factor))
    return Space(to / rope.window.original, tuple(known)), KNOWN


def _conclude(run: Run, out: Path, evolution: Evolution, space: Space, names: Sequence[str], to: int) -> None:
    """Writes the factors, and puts what was found into the record."""
    best = evolution.best()[0]
    write_json(out / FACTORS, list(best.factors))
    run.resolved |= {
        "factors": list(best.factors),
        "attention_factor": best.attention_factor,
        "best_after": falls(list(evolution.losses.values())),
        "extend_with": f"--method longrope --option factors=@{out / FACTORS} --option attention_factor={best.attention_factor}",
    }
    found = {name: evolution.losses[start] for name, start in zip(names, space.starts(), strict=True)}
    found["searched"] = evolution.losses[best]
    run.results = [
        EvalResult(
            name=f"search/{name}",
            protocol=f"perplexity over {run.given['windows']} windows of {to} tokens that the search itself was judged on",
            length=to,
            metric="perplexity",
            value=math.exp(loss),
            stderr=None,
            count=run.given["windows"] * (to - 1),
            higher_is_better=False,
            details={"stderr_reason": "chosen on these texts, so no estimate for others: measure it on held-out ones"},
        )
        for name, loss in found.items()
    ]
