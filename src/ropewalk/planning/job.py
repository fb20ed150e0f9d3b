"""One tuning run on some devices: whether its values make a run, what fits, and what would."""

from dataclasses import dataclass, replace

from ropewalk.errors import DataError
from ropewalk.names import unknown
from ropewalk.planning.memory import ADAPTERS, MICRO_TOKENS, POLICIES, PRECISIONS, Load, Memory, memory_of
from ropewalk.planning.shapes import Shape
from ropewalk.planning.work import Device, seconds_a_sequence, seconds_of_update

STEPS = 1000  # the paper's
SMALL = 100_000_000  # as `tune`: parameters below which a step has few sequences
LEAST_MEMORY, MOST_MEMORY = 10**9, 10**13  # bytes of one device, beyond which a unit was meant otherwise


@dataclass(frozen=True, kw_only=True)
class Job:
    """One tuning run on some devices."""

    shape: Shape
    length: int
    sequences: int
    steps: int
    adapter: str
    dtype: str
    gpus: int
    memory: int
    on: Device

    @property
    def load(self) -> Load:
        """What the busiest device is given in a step: whole sequences, as many at once as `tune` takes."""
        own = -(-self.sequences // self.gpus)
        at_once = min(own, max(1, MICRO_TOKENS // self.length))
        return Load(tokens=at_once * self.length, passes=-(-own // at_once), gpus=self.gpus, on_gpu=self.on.on_gpu)

    @property
    def usable(self) -> int:
        return int(self.memory * self.on.usable)

    def memory_by(self, policy: str) -> Memory:
        return memory_of(self.shape, self.load, policy, self.dtype, self.adapter)

    def seconds_a_step(self, policy: str) -> float:
        own = -(-self.sequences // self.gpus)
        each = seconds_a_sequence(self.shape, self.length, policy, self.dtype, self.adapter, self.on)
        return own * each + seconds_of_update(self.shape, self.dtype, self.adapter, self.gpus, self.on)

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
    if steps < 1:
        raise DataError(f"--steps is {steps}.\n  Give at least 1; the paper tunes for {STEPS}.")
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
    if gpus > sequences:
        raise DataError(
            f"--gpus is {gpus}, and a step has {sequences} sequences of {length} tokens.\n"
            "  A sequence stays whole on one GPU; sequence parallelism, which would cut it up, is not there yet.\n"
            f"  Give at most {sequences}, or --batch-tokens of at least {gpus * length}."
        )
    return Job(shape=shape, length=length, sequences=sequences, steps=steps, adapter=adapter, dtype=dtype, gpus=gpus,
               memory=memory, on=on)  # fmt: skip


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
    """The smallest number of these GPUs that bears the run, one sequence each at least, and the fastest policy there."""
    for gpus in range(1, job.sequences + 1):
        if (policy := replace(job, gpus=gpus).fastest()) is not None:
            return gpus, policy
    return None


def longest_length(job: Job) -> int | None:
    """The longest sequence that fits, in whole kibitokens; None where none does. The number of sequences stays."""
    least, most = 0, job.length // 1024
    while least < most:
        middle = (least + most + 1) // 2
        least, most = (middle, most) if replace(job, length=middle * 1024).fastest() else (least, middle - 1)
    return least * 1024 or None
