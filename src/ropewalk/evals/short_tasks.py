"""Short tasks (BoolQ, PIQA, RACE, WinoGrande) through lm_eval: rows of accuracy, each with every item's verdict.

Tasks, prompts, choices and metrics are lm_eval's; here are only the answers. Its task makes its requests, they are
answered a chunk of items at a time and kept, and the answers are handed to lm_eval's `evaluate`.
"""

import contextlib
import hashlib
import io
import json
import logging
import math
import random
import statistics
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from ropewalk.checkpoint.folder import Checkpoint
from ropewalk.errors import DataError
from ropewalk.evals.passkey import wilson_interval
from ropewalk.evals.pieces import Pieces
from ropewalk.evals.task_files import GROUPS, LONG_NAMES, TASKS, NamedTask, named_tasks, require_lm_eval
from ropewalk.model.load import LoadedModel
from ropewalk.model.scoring import Scorer
from ropewalk.progress import Progress
from ropewalk.record import EvalResult

SHORT_TASKS = (*TASKS, *GROUPS)
CHUNK_ITEMS = 64  # items a piece: what a killed run does again at most
METRICS = {"acc": "accuracy", "acc_norm": "accuracy_norm"}  # lm_eval's names and ours, of what is right or wrong
LOGGERS = ("lm_eval", "datasets", "huggingface_hub", "transformers")


def is_short_task(name: str) -> bool:
    """Whether a task is for lm_eval: one of SHORT_TASKS, or named like one of its RULER and LongBench tasks.

    >>> [is_short_task(name) for name in ("race", "niah_single_1", "perplexity")]
    [True, True, False]
    """
    return name in SHORT_TASKS or name.startswith(LONG_NAMES)


def built_tasks(
    tasks: Sequence[str], *, files: Path | None, checkpoint: Checkpoint, seed: int, progress: Progress
) -> list[NamedTask]:
    """The tasks with their items, in the order asked for, made before anything is computed or written.

    `files` is a folder with boolq.jsonl, race-high.jsonl and so on; None lets lm_eval fetch its own data. `seed` is for
    tasks that draw their items. Raises DataError for items that cannot be had.
    """
    require_lm_eval()
    if files is None:
        progress.note("Items of short tasks come from the hub, or from what `datasets` has of it.")
    with quietly(seed):
        return named_tasks(tasks, files=files, checkpoint=checkpoint.folder, window=checkpoint.window.target, seed=seed)


def measured_short_tasks(
    loaded: LoadedModel, scorer: Scorer, built: Sequence[NamedTask], *, limit: int | None, seed: int, pieces: Pieces,
    progress: Progress,
) -> list[EvalResult]:  # fmt: skip
    """A row for each task and metric; `limit` takes the first so many items of each task. Raises DataError for a limit of
    none."""
    if limit is not None and limit < 1:
        raise DataError(f"a limit of {limit} items measures nothing.\n  Give at least 1, or none for all items.")
    from ropewalk.evals.engine import EngineLM  # lm_eval takes seconds to import

    engine = EngineLM(loaded, scorer)
    rows: list[EvalResult] = []
    for named in built:
        with quietly(seed):
            named.task.set_config("num_fewshot", named.task.config.num_fewshot or 0)
            named.task.set_fewshot_seed(seed)
            named.task.build_all_requests(limit=limit)
        answers, seen = answered(engine, named.name, named.task.instances, pieces, progress)
        if seen["truncated"]:
            progress.warn(
                f"{seen['truncated']} of {len(answers)} prompts of {named.name} do not fit into the window of "
                f"{loaded.window} tokens with their answers, and lost their beginnings; the rows say so."
            )
        with quietly(seed):
            rows += _rows(named, answers, limit, seen, loaded.window)
    return rows


def answered(
    engine: Any, name: str, instances: Sequence[Any], pieces: Pieces, progress: Progress
) -> tuple[list[Any], dict[str, int]]:
    """lm_eval's requests answered in order, chunk by chunk through `pieces`; and what was seen of their lengths."""
    items: dict[Any, list[Any]] = {}
    for instance in instances:
        items.setdefault(instance.doc_id, []).append(instance)
    grouped, chunks = list(items.values()), {}
    for first in range(0, len(grouped), CHUNK_ITEMS):
        requests = [instance for item in grouped[first : first + CHUNK_ITEMS] for instance in item]
        chunks[f"short/{name}/{first}/{_digest([instance.args for instance in requests])[:16]}"] = requests
    todo = pieces.todo(list(chunks))
    with progress.bar(name, len(chunks), done=len(chunks) - len(todo)) as bar:
        for key, requests in chunks.items():
            if key in todo:
                engine.truncated, engine.longest = 0, 0
                found = getattr(engine, requests[0].request_type)(requests)
                pieces.add(key, {"answers": found, "truncated": engine.truncated, "longest": engine.longest})
                bar.advance()
    pieces.meet()
    answers = [answer for key in chunks for answer in pieces[key]["answers"]]
    seen = {
        "truncated": sum(pieces[key]["truncated"] for key in chunks),
        "longest": max((pieces[key]["longest"] for key in chunks), default=0),
    }
    return answers, seen


def _rows(
    named: NamedTask, answers: Sequence[Any], limit: int | None, seen: dict[str, int], window: int
) -> list[EvalResult]:
    from lm_eval.evaluator import evaluate

    from ropewalk.evals.engine import Known

    task, ours = named.task, named.name
    judged: Any = evaluate(lm=Known(answers), task_dict={"tasks": {ours: task}}, limit=limit, bootstrap_iters=0)
    samples = judged["samples"][ours]
    shots = f"{task.config.num_fewshot}-shot" if task.config.num_fewshot else "zero-shot"
    said = [[s["arguments"], task.doc_to_text(s["doc"]) if task.multiple_input else s["target"]] for s in samples]
    shared = {
        "task": task.config.task, "task_version": task.VERSION, "lm_eval": metadata.version("lm_eval"),
        "data": named.data, "limit": limit, "items_sha256": _digest(said), "truncated": seen["truncated"],
        "longest_prompt": seen["longest"],
    }  # fmt: skip
    protocol = f"lm_eval {shared['lm_eval']}, {task.config.task} {task.VERSION}, {shots}"
    rows = []
    for key, value in judged["results"][ours].items():
        metric, _, kind = key.partition(",")
        if not kind or metric.endswith("_stderr") or value == -1:  # RULER's word for a length that was not asked for
            continue
        rows.append(
            EvalResult(
                name=ours,
                protocol=protocol,
                length=int(metric) if metric.isdigit() else window,  # RULER calls its metrics by their lengths
                metric="score" if metric.isdigit() else METRICS.get(metric) or metric,
                value=value,
                count=len(samples),
                higher_is_better=bool(task.higher_is_better().get(metric, True)),
                **_uncertainty([sample[metric] for sample in samples], shared, verdicts=metric in METRICS),
            )
        )
    return rows


def _uncertainty(values: Sequence[Any], shared: dict[str, Any], *, verdicts: bool) -> dict[str, Any]:
    """A row's standard error, and in its details the items' verdicts where each is right or wrong."""
    trials = len(values)
    if verdicts:
        hits = sum(map(int, values))
        return {
            "stderr": math.sqrt(hits * (trials - hits) / trials) / trials,
            "details": {**shared, "interval_95": list(wilson_interval(hits, trials)),
                        "items": "".join(str(int(value)) for value in values)},
        }  # fmt: skip
    if trials > 1 and all(isinstance(value, int | float) for value in values):
        return {"stderr": statistics.stdev(values) / math.sqrt(trials), "details": shared}
    return {"stderr": None, "details": {**shared, "stderr_reason": "one item, or a metric that is no mean over items"}}


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, ensure_ascii=True, default=str).encode()).hexdigest()


@contextlib.contextmanager
def quietly(seed: int) -> Iterator[None]:
    """Holds back bars and notices of lm_eval and what it loads, and lets it draw from `seed`; puts all back after."""
    levels = {logger: logger.level for logger in map(logging.getLogger, LOGGERS)}
    states = random.getstate(), np.random.get_state()
    for logger in levels:
        logger.setLevel(logging.CRITICAL)  # an error that matters is raised
    random.seed(seed)
    np.random.seed(seed % 2**32)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)
        random.setstate(states[0])
        np.random.set_state(states[1])
