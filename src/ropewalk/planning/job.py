"""One tuning run on some devices: whether its values make a run, what fits, and what would."""

from dataclasses import dataclass, replace

from ropewalk.errors import DataError
from ropewalk.given import require_steps
from ropewalk.names import unknown
from ropewalk.planning.memory import ADAPTERS, MICRO_TOKENS, POLICIES, PRECISIONS, Load, Memory, memory_of
from ropewalk.planning.shapes import Shape
from ropewalk.planning.work import Device, seconds_a_sequence, seconds_of_update

STEPS = 1000  # the paper's
SMALL = 100_000_000  # as `tune`: parameters below which a step has few sequences
LEAST_MEMORY, MOST_MEMORY = 10**9, 10**13  # bytes of one device, beyond which a unit was meant otherwise


@dataclass(frozen=True, kw_only=True)
class Job:
    """One tuning run on some devices, of which `sequence` share each sequence."""

    shape: Shape
    length: int
    sequences: int
    steps: int
    adapter: str
    dtype: str
    gpus: int
    memory: int
    on: Device
    sequence: int = 1

    @property
    def data(self) -> int:
        """How many sequences are worked at side by side."""
        return self.gpus // self.sequence

    @property
    def load(self) -> Load:
        """What the busiest device is given in a step: its part of as many sequences at once as `tune` takes."""
        own = -(-self.sequences // self.data)
        at_once = min(own, max(1, MICRO_TOKENS // self.length))
        return Load(
            tokens=at_once * -(-self.length // self.sequence), passes=-(-own // at_once), gpus=self.gpus,
            sequence=self.sequence, on_gpu=self.on.on_gpu,
        )  # fmt: skip

    @property
    def usable(self) -> int:
        return int(self.memory * self.on.usable)

    def memory_by(self, policy: str) -> Memory:
        return memory_of(self.shape, self.load, policy, self.dtype, self.adapter)

    def seconds_a_step(self, policy: str) -> float:
        own = -(-self.sequences // self.data)
        each = seconds_a_sequence(self.shape, self.length, policy, self.dtype, self.adapter, self.on)
        return own * each / self.sequence + seconds_of_update(self.shape, self.dtype, self.adapter, self.gpus, self.on)

    def policies(self) -> tuple[str, ...]:
        """A CPU's own memory is the host's: there is nothing to offload to."""
        return POLICIES if self.on.on_gpu else tuple(policy for policy in POLICIES if policy != "offload")

    def fastest(self) -> str | None:
        """The fastest policy that fits; None where none does."""
        fitting = [policy for policy in self.policies() if self.memory_by(policy).total <= self.usable]
        return min(fitting, key=self.seconds_a_step, default=None)

    def leanest(self) -> str:
        return min(self.policies(), key=lambda policy: self.memory_by(policy).total)


def job_of(
    shape: Shape,
    length: int,
    gpus: int,
    gpu_memory: int | None,
    on: Device,
    *,
    steps: int = STEPS,
    batch_tokens: int | None = None,
    adapter: str = "full",
    dtype: str | None = None,
) -> Job:
    """The run of these values, None standing for what `tune` and the device have. Raises DataError for none."""
    dtype = dtype or ("bfloat16" if on.on_gpu else "float32")
    if adapter not in ADAPTERS:
        raise DataError(unknown("adapter", adapter, ADAPTERS))
    if dtype not in PRECISIONS:
        raise DataError(unknown("dtype", dtype, PRECISIONS))
    require_steps(steps)
    memory = on.memory if gpu_memory is None else gpu_memory
    if not LEAST_MEMORY <= memory <= MOST_MEMORY:
        raise DataError(
            f"--gpu-memory is {memory:,} bytes, which no GPU has.\n"
            "  Expected between 1 GB and 10 TB a GPU; a number without a unit counts GB.\n"
            "  Give it such as 80GB, 80GiB or 80."
        )
    sequences = _sequences(shape, length, batch_tokens)
    if gpus < 1 or (gpus > 1 and not on.on_gpu):
        raise DataError(
            f"--gpus is {gpus}" + (".\n  Give at least 1." if on.on_gpu else " with --gpu-type cpu.\n"
            "  All processes of this machine would share its one memory and its cores.\n  Leave --gpus out.")
        )  # fmt: skip
    job = Job(shape=shape, length=length, sequences=sequences, steps=steps, adapter=adapter, dtype=dtype, gpus=gpus,
              memory=memory, on=on)  # fmt: skip
    if not layouts(job):
        raise DataError(
            f"--gpus is {gpus}, and a step has {sequences} sequences of {length} tokens.\n"
            f"  GPUs that share a sequence divide the {shape.heads} heads of attention, and no such layout keeps "
            f"{gpus} busy.\n"
            f"  Give at most {sequences}, or --batch-tokens of at least {gpus * length}."
        )
    return laid_out(job)


def layouts(job: Job) -> list[Job]:
    """The job with each number of GPUs for a sequence that can be: it divides the GPUs and the heads of queries, and
    there are sequences for all. The fewest first."""
    return [
        replace(job, sequence=count)
        for count in range(1, min(job.gpus, job.shape.heads) + 1)
        if job.gpus % count == 0 and job.shape.heads % count == 0 and job.gpus // count <= job.sequences
    ]


def laid_out(job: Job) -> Job:
    """The job with as few GPUs for each sequence as fit, for whole ones need no talk around attention; the first that
    keeps all GPUs busy where none fits."""
    possible = layouts(job)
    return next((one for one in possible if one.fastest() is not None), possible[0] if possible else job)


def _sequences(shape: Shape, length: int, batch_tokens: int | None) -> int:
    """Of one step, as `tune` has it."""
    batch = length * (64 if shape.parameters >= SMALL else 4) if batch_tokens is None else batch_tokens
    if batch < length or batch % length:
        raise DataError(
            f"--batch-tokens is {batch}, which is not a whole number of sequences of {length} tokens.\n"
            "  Every sequence of a batch has the training length.\n"
            f"  Give a multiple, such as {max(1, round(batch / length)) * length}."
        )
    return batch // length


def fewest_gpus(job: Job) -> tuple[int, str] | None:
    """The smallest number of these GPUs that bears the run, all of them busy, and the fastest policy there."""
    for gpus in range(1, job.sequences * job.shape.heads + 1):
        for one in layouts(replace(job, gpus=gpus)):
            if (policy := one.fastest()) is not None:
                return gpus, policy
    return None


def longest_length(job: Job) -> int | None:
    """The longest sequence that fits, in whole kibitokens; None where none does. The number of sequences stays."""
    least, most = 0, job.length // 1024
    while least < most:
        middle = (least + most + 1) // 2
        shorter = laid_out(replace(job, length=middle * 1024))
        least, most = (middle, most) if shorter.fastest() else (least, middle - 1)
    return least * 1024 or None
