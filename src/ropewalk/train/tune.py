"""`ropewalk tune`: fine-tune a checkpoint at its window; the output folder is itself the tuned checkpoint."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ropewalk.checkpoint.folder import Checkpoint, open_checkpoint
from ropewalk.checkpoint.output import finished_run, folder_status, make_folder, require_outside
from ropewalk.checkpoint.subject import subject_of
from ropewalk.checkpoint.trained_on import write_trained_on
from ropewalk.checkpoint.weights import weights_of
from ropewalk.errors import DataError
from ropewalk.given import require_budget, require_saving, require_seed, several
from ropewalk.model.adapters import FULL, attached, chosen_adapter
from ropewalk.model.load import chosen_device, chosen_dtype, describe_device, load_model
from ropewalk.model.ranked import divided, load_hollow
from ropewalk.model.ranks import joined, recorded
from ropewalk.model.shareable import require_can_share
from ropewalk.pilot.corpus import PILOT
from ropewalk.progress import Progress, silent
from ropewalk.record import EvalResult, Run, read_run
from ropewalk.rope.spec import Window
from ropewalk.train.adapter_folder import write_adapter
from ropewalk.train.data import (
    TextsRead,
    for_record,
    pairs_of,
    require_long_documents,
    training_rows,
    warnings_of,
)
from ropewalk.train.layout import chosen_layout
from ropewalk.train.loop import Saving, Trainer
from ropewalk.train.recipe import Recipe, resolved_recipe
from ropewalk.train.rows import SummaryRows, TokenRows
from ropewalk.train.state import remove_saves
from ropewalk.train.trackers import known_trackers, tracking
from ropewalk.train.tuned_folder import tuning_words, write_tuned

LAST_STEPS = 10


def tune(
    model: str | Path,
    *,
    out: str | Path,
    data: str | Path | Sequence[str | Path] = (PILOT,),
    recipe: str = "paper",
    packing: str = "concatenated",
    allow_short_documents: bool = False,
    steps: int | None = None,
    length: int | None = None,
    learning_rate: float | None = None,
    batch_tokens: int | None = None,
    adapter: str = FULL,
    lora_rank: int | None = None,
    lora_alpha: float | None = None,
    lora_targets: Sequence[str] | None = None,
    merge: bool = True,
    dtype: str | None = None,
    device: str | None = None,
    seed: int = 0,
    memory_budget: int | None = None,
    sequence_parallel: int | None = None,
    save_every: int = 100,
    keep_saves: int = 1,
    resume: bool = False,
    track: Sequence[str] = (),
    progress: Progress = silent,
) -> Run:
    """Tunes `model` and leaves the tuned checkpoint, its log and its record in the new folder `out`.

    `data` are texts (files, folders, data sets of the hub as "hf:org/name"), or "pilot" for the built-in corpus; for the
    recipe summaries, files of reports with their summaries. `steps` and `length` None: the recipe's (`train.recipe`
    says what each does). `packing` "documents" keeps attention inside each document. Texts that are all shorter than the
    original window are refused unless `allow_short_documents`. `learning_rate` and `batch_tokens` None: the recipe's for the model's
    size. `dtype` is what is computed in; weights and optimizer stay float32. `memory_budget` is what a step may take
    beside weights, gradients and moments, in bytes (None: most of what is free); with less, layers keep less for their
    backward pass and compute it again. `track` names the trackers that get each step's figures beside log.jsonl. Interrupted
    runs go on with `resume`. Raises RopewalkError for what the caller can mend.

    In processes that torchrun started, each calls this with the same arguments, and they do the work together;
    `sequence_parallel` of them share each row (None: as few as memory asks for). The first one writes and reports.

    `adapter` full trains every weight; lora the attention projections by LoRA (`lora_rank` None: 8, `lora_alpha` None:
    16, `lora_targets` None: as found); lora+ embeddings and norms too. With `merge` False `out` holds peft's adapter
    folder in place of the tuned checkpoint, to be laid over `model`.

    >>> run = tune("pilot", steps=2, out=folder / "tuned")
    >>> run.status, run.resolved["batch_tokens"], 0 < run.results[0].value < 5
    ('done', 1024, True)
    """
    out, data, track = Path(out), several(data), several(track)
    lora_targets = None if lora_targets is None else several(lora_targets)
    require_seed(seed)
    require_budget(memory_budget)
    require_saving(save_every, keep_saves)
    trackers = known_trackers(track)
    to_train = chosen_adapter(adapter, rank=lora_rank, alpha=lora_alpha, targets=lora_targets, merge=merge)
    given: dict[str, Any] = {
        "model": str(model), "data": [str(d) for d in data], "recipe": recipe, "steps": steps, "length": length,
        "learning_rate": learning_rate, "batch_tokens": batch_tokens, "adapter": adapter, "dtype": dtype,
        "device": device, "seed": seed, "packing": packing,
        "allow_short_documents": allow_short_documents,
    }  # fmt: skip
    if adapter != FULL:
        given |= {"lora_rank": lora_rank, "lora_alpha": lora_alpha, "lora_targets": lora_targets, "merge": merge}
    target_device = chosen_device(device)
    ranks = joined(target_device)
    progress = progress if ranks.is_first else silent
    finished = ranks.first(lambda: finished_run(out, "tune", given, resume=resume))
    if ranks.most(finished is not None):
        if not keep_saves:  # a kill may have come between the record and this
            ranks.first(lambda: remove_saves(out, 0))
        return finished or read_run(out)
    checkpoint = open_checkpoint(model)
    chosen = _chosen_recipe(given, checkpoint, data)
    compute = chosen_dtype(dtype, target_device)
    ranks = ranks.over(
        chosen_layout(sequence_parallel, ranks, checkpoint, chosen, to_train.name, compute, target_device)
    )
    require_can_share(checkpoint, ranks.layout.sequence)
    stored = "float64" if str(compute) == "torch.float64" else "float32"
    loaded = (load_model if ranks.line is None else load_hollow)(checkpoint, dtype=stored, device=device)
    trained = attached(loaded.model, to_train, seed)
    rows, read = training_rows(loaded.codec, data, chosen, seed)
    require_long_documents(read, chosen, allow_short=allow_short_documents)
    require_outside(out, checkpoint.folder)
    weights = None if ranks.line is None else divided(loaded, ranks)
    ranks.first(lambda: make_folder(out))
    run = _record(given, checkpoint, chosen, rows, read, describe_device(target_device, compute), seed)
    run.resolved |= trained.for_record()
    ranks.first(lambda: _require_same_base(run, out))
    with recorded(run, out, ranks):
        ranks.first(lambda: write_trained_on(out, read.digests, checkpoint.folder))
        trainer = Trainer(
            loaded.model, chosen, rows, out, compute, adapter=adapter, memory=memory_budget, ranks=ranks,
            weights=weights,
        )  # fmt: skip
        trainer.resume()
        _tell_engine(run, trainer, progress)
        for warning in warnings_of(rows, read, chosen, run.resolved["subject"]["method"]):
            progress.warn(warning)
        told = trackers if ranks.is_first else []
        with tracking(told, out, given | run.resolved, done=trainer.step, logged=trainer.logged) as tracker:
            trainer.run(Saving(every=save_every, keep=keep_saves), progress, tracker)
        run.results = [_final_loss(trainer)]
        if merge:
            trained.merge()
            write_tuned(out, loaded, run.resolved["subject"], trained.in_words(), ranks)
        else:
            write_adapter(out, checkpoint, trained, tuning_words(run.resolved["subject"], trained.in_words()), ranks)
    if not keep_saves:  # not before the record says done: without a save a killed run would begin anew
        ranks.first(lambda: remove_saves(out, 0))
    return run


def _chosen_recipe(given: dict[str, Any], checkpoint: Checkpoint, data: Sequence[str | Path]) -> Recipe:
    """The recipe with what was given in place of its own. Raises DataError for rows that the model's window does not hold."""
    window = checkpoint.window.target
    chosen = resolved_recipe(
        given["recipe"], parameters=checkpoint.parameters, length=given["length"], steps=given["steps"],
        learning_rate=given["learning_rate"], batch_tokens=given["batch_tokens"],
        window=Window(subject_of(checkpoint)["original"], window), packing=given["packing"],
        pairs=pairs_of(given["recipe"], data) if given["steps"] is None else None,
    )  # fmt: skip
    if chosen.length > window:
        raise DataError(
            f"--length is {chosen.length}, beyond the model's window of {window} tokens.\n"
            "  Extend the checkpoint first: ropewalk extend MODEL --to N --out DIR."
        )
    return chosen


def _require_same_base(run: Run, out: Path) -> None:
    """Raises DataError where `out` was begun from a checkpoint with other weights or another rotation at the same path."""
    if folder_status(out) in (None, "empty"):
        return
    begun = read_run(out)
    for what, before, now in (
        ("weights", begun.resolved.get("base"), run.resolved["base"]),
        ("rotation", begun.ropes.get("before"), run.ropes["before"]),
    ):
        if before != json.loads(json.dumps(now)):
            raise DataError(
                f"the {what} of {run.given['model']} is not what {out} was begun with.\n"
                "  Its saves hold what was trained of that checkpoint; going on from another would make neither.\n"
                "  Give the model as it was, or another --out."
            )


def _tell_engine(run: Run, trainer: Trainer, progress: Progress) -> None:
    run.resolved["engine"] = trainer.engine.described()
    if trainer.ranks.line is not None:
        run.resolved["layout"] = {"data": trainer.ranks.layout.data, "sequence": trainer.ranks.layout.sequence}
        progress.note(trainer.ranks.layout.in_words())
    progress.note(trainer.engine.described())
    if not trainer.fits:
        progress.warn("by forecast a step does not fit the memory that is free: see `ropewalk plan`.")


def _record(
    given: dict[str, Any],
    checkpoint: Checkpoint,
    recipe: Recipe,
    rows: TokenRows | SummaryRows,
    read: TextsRead,
    device: dict[str, Any],
    seed: int,
) -> Run:
    subject = subject_of(checkpoint) | {
        "tuned": True,
        "tuning_steps": recipe.steps,
        "tuning_tokens": recipe.steps * recipe.batch_tokens,
        "learning_rate": recipe.learning_rate,
    }
    ropes = checkpoint.positions_for_record()
    return Run(
        command="tune",
        given=given,
        resolved={
            "subject": subject,
            "base": weights_of(checkpoint),
            "recipe": recipe.name,
            "steps": recipe.steps,
            "length": recipe.length,
            "sequences": recipe.sequences,
            "batch_tokens": recipe.batch_tokens,
            "learning_rate": recipe.learning_rate,
            "schedule": f"linear over {recipe.warmup_steps} steps from {recipe.warmup_start:.0%}, then constant",
            "optimizer": f"AdamW, betas {recipe.betas}, weight decay {recipe.weight_decay}, clip {recipe.clip_norm}",
            **for_record(rows, read, recipe),
        },
        ropes={"before": ropes, "after": ropes},
        seed=seed,
        device=device,
        inputs=read.inputs,
    )


def _final_loss(trainer: Trainer) -> EvalResult:
    last = trainer.losses[-LAST_STEPS:]
    return EvalResult(
        name="tuning",
        protocol=f"weighted mean training loss of the last {len(last)} steps, nats a token",
        length=trainer.recipe.length,
        metric="loss",
        value=sum(last) / len(last),
        stderr=None,
        count=sum(trainer.targets[-LAST_STEPS:]),
        higher_is_better=False,
        details={"stderr_reason": "training batches, not a held-out sample"},
    )
