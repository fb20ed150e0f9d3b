"""`ropewalk plan`: what tuning a checkpoint at a target will need of memory and time, from its config.json alone.

No weights are needed, and no torch. Every rate is an assumption and is printed as one; `corrected` replaces it by what
the first steps of the run itself took.
"""

import copy
import statistics
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ropewalk.checkpoint.folder import Checkpoint, open_config
from ropewalk.errors import CheckpointError, DataError, RopeError
from ropewalk.names import unknown
from ropewalk.planning.job import STEPS, Job, fewest_gpus, job_of, longest_length
from ropewalk.planning.memory import ADAPTERS, trained_numbers
from ropewalk.planning.shapes import FAMILIES, PAPER_SIZES, Shape, paper_config, shape_of
from ropewalk.planning.work import device, work_of
from ropewalk.rope.spec import Window

CALIBRATION_STEPS = 3


def plan(
    model: str | Path,
    *,
    to: int | None = None,
    gpus: int = 1,
    gpu_memory: int | None = None,
    gpu_type: str = "a100",
    steps: int = STEPS,
    batch_tokens: int | None = None,
    adapter: str = "full",
    dtype: str | None = None,
) -> dict[str, Any]:
    """Memory by part and time for each policy, the fastest that fits, or what to change, as plain values.

    `model` may be a folder with nothing but config.json, or one of llama-7b, -13b, -33b, -65b. `to` None: the window it
    has. `gpu_memory` in bytes, None: what the type has. Other arguments are those of `tune`. Raises RopewalkError for a
    model without rotary positions and for values that make no run.

    >>> answer = plan("llama-7b", to=8192, gpus=8)
    >>> answer["chosen"], answer["parameters"]
    ('lean', 6738415616)
    """
    checkpoint, shape, notes = _subject(model)
    window = checkpoint.rope.window
    length = _length(checkpoint, to)
    job = job_of(
        shape,
        length,
        gpus,
        gpu_memory,
        device(gpu_type),
        steps=steps,
        batch_tokens=batch_tokens,
        adapter=adapter,
        dtype=dtype,
    )
    chosen = job.fastest()
    if job.sequences % job.data:
        notes.append(
            f"{job.sequences} sequences do not divide by {job.data}: some of the devices wait for the others in every step."
        )
    answer: dict[str, Any] = {
        "model": str(model),
        "model_type": checkpoint.config.get("model_type"),
        "parameters": shape.parameters,
        "trained_parameters": trained_numbers(shape, adapter),
        "window": {"original": window.original, "now": window.target, "to": length},
        "run": {
            "length": length, "steps": steps, "sequences": job.sequences, "batch_tokens": job.sequences * length,
            "tokens": steps * job.sequences * length, "adapter": adapter, "dtype": job.dtype,
            "tokens_at_once": job.load.tokens,
        },
        "devices": {"type": job.on.name, "count": gpus, "memory_bytes": job.memory, "usable_bytes": job.usable,
                    "layout": {"data": job.data, "sequence": job.sequence}},
        "policies": [_described(job, policy) for policy in job.policies()],
        "chosen": chosen,
        "advice": [] if chosen else _advice(job, window.original),
        "notes": notes,
        "assumptions": _assumptions(job),
        "correction": None,
    }  # fmt: skip
    return answer


def corrected(answer: dict[str, Any], measured_seconds: Sequence[float], policy: str | None = None) -> dict[str, Any]:
    """The plan with its times set right by steps of the run itself, which took so many seconds each.

    The median counts, so that a first step that also loads libraries weighs nothing. `policy` is the one they ran by;
    None: the chosen one. Times of other policies change in the same proportion; memory stays.

    >>> guess = plan("llama-7b", to=8192, gpus=8)
    >>> twice = corrected(guess, [9.0] + [2 * guess["policies"][1]["seconds_a_step"]] * 2)
    >>> round(twice["correction"]["factor"], 6)
    2.0
    """
    if not measured_seconds or min(measured_seconds) <= 0:
        raise DataError(
            f"the steps that were measured took {list(measured_seconds)} seconds.\n"
            f"  A plan is corrected by the first {CALIBRATION_STEPS} steps of a run, each of which takes some time."
        )
    ran = policy or answer["chosen"]
    planned = next((entry for entry in answer["policies"] if entry["policy"] == ran), None)
    if planned is None:
        raise DataError(unknown("policy", str(ran), [entry["policy"] for entry in answer["policies"]]))
    measured = statistics.median(measured_seconds)
    already = (answer["correction"] or {"factor": 1.0})["factor"]
    factor = measured / planned["seconds_a_step"]
    right = copy.deepcopy(answer)
    for entry in right["policies"]:
        for key in ("seconds_a_step", "hours", "gpu_hours"):
            entry[key] *= factor
        entry["tokens_a_second"] /= factor
    right["correction"] = {"factor": already * factor, "measured_seconds": measured, "steps": len(measured_seconds)}
    return right


def _subject(model: str | Path) -> tuple[Checkpoint, Shape, list[str]]:
    """The checkpoint, its shape and what is to be known of how it was counted. No weights are opened."""
    if str(model) in PAPER_SIZES and not Path(model).exists():
        config = paper_config(str(model))
        return Checkpoint(Path(str(model)), str(model), config), shape_of(config), []
    checkpoint = open_config(model)
    source = str(checkpoint.folder / "config.json")
    try:
        return checkpoint, shape_of(checkpoint.config, source=source), []
    except CheckpointError:
        if str(checkpoint.config.get("model_type")) in FAMILIES or not any(checkpoint.folder.glob("*.safetensors")):
            raise
    shape = shape_of(checkpoint.config, checkpoint.parameters, source)
    note = (
        f"model_type {checkpoint.config.get('model_type')!r} is counted from its weights; time and activations are those "
        "of a Llama of the same sides, with every weight at work for every token."
    )
    return checkpoint, shape, [note]


def _length(checkpoint: Checkpoint, to: int | None) -> int:
    window = checkpoint.rope.window
    if to is not None:
        Window(window.original, to)  # one that extend would refuse is refused
    if to is not None and to < window.target:
        raise RopeError(
            f"the target of {to} tokens is below the window of {window.target} that {checkpoint.name} has.\n"
            "  Its config.json says so; a shorter window needs no extension.\n"
            f"  Give --to of at least {window.target}, or leave it out."
        )
    return to or window.target


def _described(job: Job, policy: str) -> dict[str, Any]:
    memory, seconds = job.memory_by(policy), job.seconds_a_step(policy)
    hours = job.steps * seconds / 3600
    return {
        "policy": policy,
        "fits": memory.total <= job.usable,
        "memory": asdict(memory) | {"total": memory.total},
        "flops_a_step": job.sequences * work_of(job.shape, job.length, policy, job.adapter).total,
        "seconds_a_step": seconds,
        "tokens_a_second": job.sequences * job.length / seconds,
        "hours": hours,
        "gpu_hours": hours * job.gpus,
    }


def _advice(job: Job, original: int) -> list[str]:
    """What would make it fit, each with its numbers."""
    lean = job.leanest()
    short = job.memory_by(lean).total
    said = [f"the least that one device must hold is {_size(short)}, by {lean}; {_size(job.usable)} are usable."]
    if job.on.on_gpu:
        found = fewest_gpus(job)
        said.append(
            f"more GPUs: {found[0]} of {_size(job.memory)} suffice, by {found[1]}."
            if found
            else f"more GPUs do not help: a sequence of {job.length} tokens is shared by at most {job.shape.heads} of "
            "them, a head of attention each."
        )
    for adapter in ADAPTERS[1:] if job.adapter == "full" else ():
        other = replace(job, adapter=adapter)
        if (policy := other.fastest()) is not None:
            said.append(f"--adapter {adapter}: {_size(other.memory_by(policy).total)}, by {policy}.")
    if (length := longest_length(job)) is not None and length > original:
        said.append(f"a shorter target: {length} tokens fit.")
    rows = replace(job, length=original)
    if original < job.length and (policy := rows.fastest()) is not None:
        said.append(
            f"tune --recipe pose, whose rows are of the original {original} tokens: "
            f"{_size(rows.memory_by(policy).total)}, by {policy}. It is another objective."
        )
    if len(said) == 1:
        said.append("neither LoRA nor shorter rows fit: more memory is needed.")
    return said


def _assumptions(job: Job) -> list[str]:
    said = [
        f"{job.on.words}; {job.on.usable:.0%} of the memory is usable.",
        "Attention of every layer is counted over the whole text; the time of loading, saving and norms is not.",
        f"Weights and AdamW's moments are {'float64' if job.dtype == 'float64' else 'float32'}; products are {job.dtype}.",
    ]
    said.append("`tune` lets some layers keep more than the policy says where there is room, and is then faster.")
    if job.gpus > 1:
        said.append(
            "FSDP2 divides weights, gradients and moments over all GPUs; its traffic, and that of a shared sequence, hides "
            "behind the work."
        )
    if job.on.on_gpu:
        said.append(f"Offloading moves {job.on.host_speed / 1e9:.0f} GB/s each way, with nothing beside it.")
    return said


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
