"""What is asked of a model, whether it can be asked, and what answers it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ropewalk.checkpoint.folder import Checkpoint
from ropewalk.errors import DataError
from ropewalk.evals.documents import ScoredDocument
from ropewalk.evals.landmark import landmark_documents, measured_landmark
from ropewalk.evals.losses import LossTable
from ropewalk.evals.passkey import (
    NEAR_START_PROTOCOL,
    anywhere_grid,
    anywhere_results,
    grid,
    measured_hits,
    near_start_grid,
    passkey_results,
)
from ropewalk.evals.perplexity import PerplexityPlan, measured_perplexity
from ropewalk.evals.pieces import Pieces
from ropewalk.evals.short_tasks import SHORT_TASKS, built_tasks, is_short_task, measured_short_tasks
from ropewalk.evals.summaries import SAMPLERS, hub_file, measured_summaries, optional, summary_documents
from ropewalk.evals.task_files import govreport_file, task_names
from ropewalk.evals.task_files import task_files as local_task_files
from ropewalk.evals.windows import DEFINITIONS, PAPER_STRIDE
from ropewalk.model.load import LoadedModel, TextCodec
from ropewalk.model.scoring import Scorer
from ropewalk.names import unknown
from ropewalk.pilot.corpus import PILOT
from ropewalk.progress import Progress
from ropewalk.record import EvalResult, input_file
from ropewalk.rope.methods import TABLE_METHOD
from ropewalk.text.summaries import SummaryDocument, summary_room

PASSKEYS = ("passkey", "passkey-near-start", "passkey-anywhere", "passkey-landmark")
TASKS = ("perplexity", *PASSKEYS, *SHORT_TASKS, "govreport")
DEFAULT_TASKS = ("perplexity", "passkey")
SHORTEST_WINDOW = 256  # where the default windows begin; the paper's stride


@dataclass(frozen=True, kw_only=True)
class Questions:
    """What is asked of a model, apart from the texts."""

    tasks: tuple[str, ...]
    lengths: tuple[int, ...]
    perplexity: PerplexityPlan
    task_files: Path | None
    limit: int | None
    sampler: str
    seed: int

    @property
    def target(self) -> int:
        return max(self.lengths)

    @property
    def short_tasks(self) -> list[str]:
        return [task for task in self.tasks if is_short_task(task)]


@dataclass(frozen=True)
class Asked:
    """A loaded model and where its answers go."""

    loaded: LoadedModel
    scorer: Scorer
    out: Path
    pieces: Pieces
    progress: Progress


def default_lengths(window: int) -> tuple[int, ...]:
    """Powers of two from 256 below the window, and the window.

    >>> default_lengths(3000)
    (256, 512, 1024, 2048, 3000)
    """
    powers = [SHORTEST_WINDOW * 2**i for i in range(20)]
    return (*[power for power in powers if power < window], window)


# setting -> the tasks that it is for; given without any of them, it would do nothing
FOR_PERPLEXITY = ("also", "windows_sampled", "max_tokens", "documents", "min_tokens", "truncate_tokens")


def check(questions: Questions, given: Mapping[str, Any]) -> None:
    """Raises DataError for what cannot be asked, and for a setting that would have no effect."""
    max_drop, against = given["max_drop"], given["against"]
    if not questions.lengths:
        raise DataError("no window length given.\n  Give --lengths such as 2k,8k, or leave it out.")
    if not questions.tasks:
        raise DataError(f"no task given.\n  Known: {', '.join(TASKS)}.")
    for kind, names, known in (
        ("task", questions.tasks, TASKS),
        ("definition of perplexity", questions.perplexity.also, tuple(DEFINITIONS)),
        ("sampler", (questions.sampler,), tuple(SAMPLERS)),
    ):
        for name in names:
            if names.count(name) > 1:
                raise DataError(f"the {kind} {name} is asked for twice.\n  Name it once.")
            if name not in known and not (kind == "task" and is_short_task(name)):
                raise DataError(unknown(kind, name, known))
    if "sliding" in questions.perplexity.also:
        raise DataError("'sliding' is always computed: it is the paper's perplexity.\n  Leave it out of --also.")
    _require_effect(questions, given)
    for length in questions.lengths:
        if length < 2:
            raise DataError(f"a window of {length} tokens scores nothing.\n  Give at least 2.")
    least = {"stride": 1, "windows_sampled": 2, "max_tokens": 2, "documents": 1, "truncate_tokens": 2, "limit": 1}
    for name, smallest in least.items():
        if given[name] is not None and given[name] < smallest:
            raise DataError(f"--{name.replace('_', '-')} {given[name]} scores nothing.\n  Give at least {smallest}.")
    if max_drop is not None and not 0 <= max_drop <= 100:
        raise DataError(f"a drop of {max_drop} percentage points cannot be.\n  --max-drop is between 0 and 100.")
    if max_drop is not None and against is None:
        raise DataError(
            "a drop is measured against the base model's evaluation, and none was given.\n"
            "  Give its folder with --against, or leave --max-drop out."
        )


def _require_effect(questions: Questions, given: Mapping[str, Any]) -> None:
    reports = "govreport" in questions.tasks
    idle = [] if "perplexity" in questions.tasks else [(name, "perplexity") for name in FOR_PERPLEXITY if given[name]]
    if "perplexity" not in questions.tasks and given["stride"] != PAPER_STRIDE:
        idle.append(("stride", "perplexity"))
    if not {"perplexity", *PASSKEYS} & set(questions.tasks) and given["lengths"]:
        idle.append(("lengths", "perplexity and the passkeys"))
    if not questions.short_tasks and not reports:
        idle += [(name, "a short task or govreport") for name in ("limit", "task_files") if given[name]]
    if not reports and given["sampler"] != "paper":
        idle.append(("sampler", "govreport"))
    if "perplexity" not in questions.tasks and given["data"] != [PILOT]:
        idle.append(("data", "perplexity"))
    for name, task in idle:
        raise DataError(
            f"--{name.replace('_', '-')} has no effect here.\n"
            f"  It is for {task}, and --tasks has {', '.join(questions.tasks)}.\n"
            "  Leave it out, or add the task."
        )


def measures(
    questions: Questions, codec: TextCodec, checkpoint: Checkpoint, scored: Sequence[ScoredDocument], progress: Progress
) -> list[Callable[[Asked], list[EvalResult]]]:
    """What answers each question, made before the model is loaded: what cannot be asked is refused at once."""
    target, seed, window = questions.target, questions.seed, checkpoint.window.target
    work: list[Callable[[Asked], list[EvalResult]]] = []
    if scored:
        work.append(
            lambda asked: measured_perplexity(
                asked.scorer, scored, questions.perplexity, LossTable(asked.out, asked.pieces), asked.loaded.window,
                asked.progress,
            )
        )  # fmt: skip
    if "passkey" in questions.tasks:
        cells = grid(codec, target, seed)
        work.append(
            lambda asked: passkey_results(
                cells, _hits(asked, cells, f"passkey at {target}"), target, asked.loaded.window
            )
        )
    if "passkey-near-start" in questions.tasks:
        near = near_start_grid(codec, target, seed)
        name = "passkey-near-start"
        work.append(
            lambda asked: passkey_results(
                near, _hits(asked, near, f"{name} to {target}"), target, asked.loaded.window, name, NEAR_START_PROTOCOL
            )
        )
    if "passkey-anywhere" in questions.tasks:
        depths = anywhere_grid(codec, questions.lengths, seed)
        work.append(
            lambda asked: anywhere_results(depths, _hits(asked, depths, "passkey-anywhere"), asked.loaded.window)
        )
    if "passkey-landmark" in questions.tasks:
        hidden = landmark_documents(codec, target, seed)
        work.append(lambda asked: measured_landmark(asked.loaded, hidden, target, asked.pieces, asked.progress))
    if questions.short_tasks:
        built = built_tasks(
            questions.short_tasks, files=questions.task_files, checkpoint=checkpoint, seed=seed, progress=progress
        )
        work.append(
            lambda asked: measured_short_tasks(
                asked.loaded, asked.scorer, built, limit=questions.limit, seed=seed, pieces=asked.pieces,
                progress=asked.progress,
            )
        )  # fmt: skip
    if "govreport" in questions.tasks:
        file = govreport_file(questions.task_files)
        summary_room(codec, window)
        optional("rouge_score.rouge_scorer")
        summary_documents(file, questions.limit)
        work.append(
            lambda asked: measured_summaries(
                asked.loaded, file, limit=questions.limit, seed=seed, sampler=questions.sampler, pieces=asked.pieces,
                progress=asked.progress,
            )
        )  # fmt: skip
    return work


def _hits(asked: Asked, cells: Sequence[Any], title: str) -> list[int]:
    return measured_hits(asked.scorer, cells, title, asked.pieces, asked.progress)


def asked_reports(questions: Questions) -> list[SummaryDocument]:
    """The reports that are to be summarized, if any are."""
    return (
        summary_documents(govreport_file(questions.task_files), questions.limit)
        if "govreport" in questions.tasks
        else []
    )


def task_inputs(questions: Questions) -> list[dict[str, Any]]:
    """The local task files that are read. Raises DataError for a task or a file that is not there."""
    files: list[Path] = []
    if questions.short_tasks:
        files += local_task_files(task_names(questions.short_tasks), questions.task_files).values()
    if "govreport" in questions.tasks:
        files.append(govreport_file(questions.task_files) or hub_file())
    return [input_file(file) for file in files]


def require_positions(checkpoint: Checkpoint, lengths: Sequence[int]) -> None:
    """Raises DataError for a length that a learned table has no rows for. Rotation goes on at any length."""
    if checkpoint.table is not None and max(lengths, default=0) > checkpoint.window.target:
        raise DataError(
            f"--lengths asks for {max(lengths)} tokens, and {checkpoint.name} has {checkpoint.table.in_words()}.\n"
            "  A token beyond it has no position, so nothing can be measured there.\n"
            f"  Extend it first (ropewalk extend MODEL --method {TABLE_METHOD}), or give lengths of at most "
            f"{checkpoint.window.target}."
        )
