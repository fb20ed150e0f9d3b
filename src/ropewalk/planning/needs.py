"""What the paper's models need: the smallest number of 80 GB GPUs for each size and target, and hours on them.

    python -m ropewalk.planning.needs

prints the table of docs/results.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ropewalk.planning.job import Job, fewest_gpus, job_of, laid_out
from ropewalk.planning.shapes import PAPER_SIZES, paper_config, shape_of
from ropewalk.planning.work import device

TARGETS = (8192, 16384, 32768)
GPU_TYPE = "a100"
MEMORY = 80 * 10**9


@dataclass(frozen=True)
class Need:
    """The fewest GPUs that bear a run, the fastest policy there, and how long it takes. None where no number does."""

    model: str
    length: int
    adapter: str
    gpus: int | None
    policy: str | None
    gpu_hours: float | None


def papers_sequences(model: str, length: int) -> int:
    """Of one step in the paper: 64 for 7B, 13B and 33B at 8,192 tokens, else 128."""
    return 64 if length == 8192 and model != "llama-65b" else 128


def papers_gpus(model: str, length: int) -> int:
    """A100 in the paper: 32 where a step has 64 sequences, else 128."""
    return 32 if papers_sequences(model, length) == 64 else 128


def need(model: str, length: int, adapter: str = "full") -> Need:
    """What one of the paper's runs, 1,000 steps, needs of 80 GB GPUs."""
    batch = papers_sequences(model, length) * length
    job: Job = job_of(
        shape_of(paper_config(model)), length, 1, MEMORY, device(GPU_TYPE), batch_tokens=batch, adapter=adapter
    )
    found = fewest_gpus(job)
    if found is None:
        return Need(model, length, adapter, None, None, None)
    gpus, policy = found
    hours = laid_out(replace(job, gpus=gpus)).seconds_a_step(policy) * job.steps / 3600
    return Need(model, length, adapter, gpus, policy, hours * gpus)


def needs_table(lengths: Sequence[int] = TARGETS) -> str:
    """The needs of all sizes, in Markdown."""
    head = ["model", "trained", *(f"{length // 1024}k" for length in lengths), "GPUs in the paper"]
    lines = [_row(head), _row(["---"] * len(head))]
    for model in PAPER_SIZES:
        used = " / ".join(str(papers_gpus(model, length)) for length in lengths)
        for adapter in ("full", "lora+"):
            cells = [_cell(need(model, length, adapter)) for length in lengths]
            lines.append(_row([model, adapter, *cells, used if adapter == "full" else ""]))
    return "\n".join(lines)


def _cell(found: Need) -> str:
    if found.gpus is None or found.gpu_hours is None:
        return "–"
    return f"{found.gpus} ({found.policy}; {found.gpu_hours:,.0f} h)"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |".replace("  ", " ")


if __name__ == "__main__":
    print(needs_table())
