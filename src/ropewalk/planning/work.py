"""How much a step computes, and how long that takes at assumed rates. What a run then measures corrects it.

With u = layers x a x S^2, causal attention multiplies and adds 2u in its forward pass and 5u in its backward pass (the
fused kernels make the weights again). A product costs 2 for each of its numbers and tokens; its gradients 2 each.
"""

import os
from dataclasses import dataclass

from ropewalk.errors import DataError
from ropewalk.names import unknown
from ropewalk.planning.memory import PRECISIONS, kept_bytes_a_token, trained_numbers, trains_head
from ropewalk.planning.shapes import Shape

NARROW_HEAD = 64  # attention over heads no wider is slower
NARROW = (350 / 400, 250 / 300)  # forward, backward: kernels of one generation on an H200, heads of 64 beside 128
OPTIMIZER_TRAFFIC = 28  # bytes a number: AdamW reads weight, gradient and two moments, and writes three of them


@dataclass(frozen=True, kw_only=True)
class Device:
    """What one is assumed to do: FLOP a second in 16 bits (CPU: float32), bytes a second, bytes."""

    name: str
    memory: int
    usable: float
    products: float
    attention_forward: float
    attention_backward: float
    memory_speed: float
    host_speed: float
    wide: float  # rate of float32 beside the above
    words: str

    @property
    def on_gpu(self) -> bool:
        return self.name != "cpu"

    def share(self, dtype: str) -> float:
        """How fast it computes in this dtype, beside the rates above."""
        if dtype == "float64":
            return self.wide / 2
        return self.wide if dtype == "float32" else 1.0


# The part of its memory that tensors may fill: on a GPU the rest is the context, the network's buffers and what the
# allocator cannot join; on a CPU the holes that malloc leaves, which were seen to take 5 to 30 % more.
_GPU_USABLE, _CPU_USABLE = 0.94, 0.75
_HOPPER = {
    "products": 620e12,
    "attention_forward": 400e12,
    "attention_backward": 300e12,
    "host_speed": 50e9,
    "wide": 67 / 989,
}
_HOPPER_WORDS = "products at 620 TFLOP/s of 989, attention at 400 forward and 300 backward"
GPU_TYPES: dict[str, Device] = {
    "a100": Device(
        name="a100", memory=80 * 10**9, usable=_GPU_USABLE, products=0.6 * 312e12, attention_forward=0.6 * 312e12,
        attention_backward=0.5 * 312e12, memory_speed=2.0e12, host_speed=25e9, wide=19.5 / 312,
        words="A100: products and attention forward at 60 % of 312 TFLOP/s, attention backward at 50 %",
    ),
    "h100": Device(name="h100", memory=80 * 10**9, usable=_GPU_USABLE, memory_speed=3.35e12,
                   words=f"H100: {_HOPPER_WORDS}", **_HOPPER),
    "h200": Device(name="h200", memory=141 * 10**9, usable=_GPU_USABLE, memory_speed=4.8e12,
                   words=f"H200: {_HOPPER_WORDS}", **_HOPPER),
}  # fmt: skip
DEVICE_TYPES = (*GPU_TYPES, "cpu")


def device(name: str) -> Device:
    """The device of that name; for cpu this machine's cores and memory. Raises DataError for another name."""
    if name == "cpu":
        return _this_machine()
    if name not in GPU_TYPES:
        raise DataError(unknown("gpu type", name, DEVICE_TYPES))
    return GPU_TYPES[name]


def _this_machine() -> Device:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Device(
        name="cpu", memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), usable=_CPU_USABLE,
        products=90e9 * cores, attention_forward=45e9 * cores, attention_backward=45e9 * cores, memory_speed=10e9,
        host_speed=10e9, wide=1.0,
        words=f"CPU cores: {cores}, each with products at 90 GFLOP/s and attention at 45, in float32",
    )  # fmt: skip


@dataclass(frozen=True)
class Work:
    """Floating point operations: of products, and of attention in each direction."""

    products: float
    attention_forward: float
    attention_backward: float

    @property
    def total(self) -> float:
        return self.products + self.attention_forward + self.attention_backward


def work_of(shape: Shape, length: int, policy: str, adapter: str = "full") -> Work:
    """What one sequence takes, forward and backward, with what the policy makes twice."""
    body = (6 if adapter == "full" else 4) + (0 if policy == "none" else 2)
    head = 6 if trains_head(shape, adapter) else 4
    unit = shape.layers * shape.attended * length**2
    twice = 2 if policy == "lean-thin" else 1
    return Work(body * shape.body * length + head * shape.head * length, twice * 2 * unit, 5 * unit)


def model_flops(shape: Shape, length: int, adapter: str = "full") -> float:
    """What one sequence takes by the paper and pencil that a GPU's utilization is reckoned with: nothing made twice.

    Weights that an adapter leaves alone have no gradients of their own.
    """
    body, head = 6 if adapter == "full" else 4, 6 if trains_head(shape, adapter) else 4
    return (body * shape.body + head * shape.head) * length + 6 * shape.layers * shape.attended * length**2


def attention_share(shape: Shape, length: int) -> float:
    """The part of attention in `model_flops`."""
    return 6 * shape.layers * shape.attended * length**2 / model_flops(shape, length)


def seconds_a_sequence(shape: Shape, length: int, policy: str, dtype: str, adapter: str, on: Device) -> float:
    """At the device's assumed rates; what goes to the host and back is added as if nothing ran beside it."""
    work, share = work_of(shape, length, policy, adapter), on.share(dtype)
    forward, backward = NARROW if shape.head_dim <= NARROW_HEAD and on.on_gpu else (1.0, 1.0)
    seconds = (
        work.products / on.products
        + work.attention_forward / (on.attention_forward * forward)
        + work.attention_backward / (on.attention_backward * backward)
    ) / share
    if policy == "offload":
        moved = 2 * length * shape.layers * kept_bytes_a_token(shape, policy, dtype)
        seconds += moved / on.host_speed
    return seconds


def seconds_of_update(shape: Shape, dtype: str, adapter: str, gpus: int, on: Device) -> float:
    """The optimizer's step, which is bound by memory."""
    wide = PRECISIONS[dtype].weights / 4
    return wide * OPTIMIZER_TRAFFIC * trained_numbers(shape, adapter) / gpus / on.memory_speed
