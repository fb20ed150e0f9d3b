"""What a training step holds at the moment that needs most, in bytes on one device, part by part.

A layer leaves something for its backward pass (`kept`), and while one layer's backward pass is made it needs room for
itself (`working`). What stays and what is made again is the policy's:

    none        every intermediate is kept; nothing is made twice
    lean        a layer keeps its input and what attention gave with its log-sum-exp; all else runs twice, tile by tile
    lean-thin   a layer keeps its input alone; attention runs twice too
    offload     as lean, and what is kept lies in the host's memory

Weights, gradients and AdamW's moments are float32, as `tune` has them; with several GPUs each holds its share of them
(FSDP2), and gathers them in float32 too: a layer while it is at work, embedding and head through the pass. A GPU that
shares a sequence with others holds its own tokens' part of everything; around attention both the
heads of its tokens and the tokens of its heads (Ulysses). The terms are numbers a token; the bench
`plan_predicts_memory` holds their sum against what the system measures.
"""

from dataclasses import dataclass

from ropewalk.planning.shapes import Shape

# d hidden, a width of queries, k width of keys, f inner width of the MLP, S tokens at once

POLICIES = ("none", "lean", "lean-thin", "offload")
ADAPTERS = ("full", "lora", "lora+")
LORA_RANK = 8  # LongLoRA's (arXiv 2309.12307), on all projections of attention
MICRO_TOKENS = 8192  # tokens of one forward and backward pass, unless a sequence is longer
TILE = 1024  # tokens that the lean policies run through projections and MLP at a time
CHUNK_NUMBERS = {"cpu": 2**23, "cuda": 2**26}  # logits held at once


@dataclass(frozen=True)
class Precision:
    """Bytes of a number: in products, in the hidden state between layers, in weights and their gradients.

    Autocast computes products in 16 bits and leaves the hidden state in the dtype of the weights.
    """

    compute: int
    residual: int
    weights: int


PRECISIONS = {
    "bfloat16": Precision(2, 4, 4),
    "float16": Precision(2, 4, 4),
    "float32": Precision(4, 4, 4),
    "float64": Precision(8, 8, 8),
}


@dataclass(frozen=True, kw_only=True)
class Load:
    """What one device is given in a step: `passes` forward and backward passes of `tokens` each.

    Memory does not depend on how many: gradients stay from one to the next. `sequence` devices share each sequence, and
    `tokens` are those of one of them.
    """

    tokens: int
    passes: int = 1
    gpus: int = 1
    sequence: int = 1
    on_gpu: bool = True


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes on one device at the moment that needs most; `host` is what its process takes of the host's memory.

    Keys and values of others are never held.
    """

    weights: int
    copies: int
    gradients: int
    optimizer: int
    kept: int
    working: int
    loss: int
    host: int

    @property
    def total(self) -> int:
        """A layer at work and a chunk of the loss are never there together."""
        state = self.weights + self.copies + self.gradients + self.optimizer
        return state + self.kept + max(self.working, self.loss)


def trained_numbers(shape: Shape, adapter: str) -> int:
    """How many numbers are trained: all, LoRA's two matrices a projection, or these with embedding and norms."""
    if adapter == "full":
        return shape.parameters
    d, a, k = shape.hidden, shape.attended, shape.keyed
    into = (d + a + 2 * k) if shape.fused else (d + a) + 2 * (d + k)
    lora = shape.layers * LORA_RANK * (into + a + d)
    return lora if adapter == "lora" else lora + shape.norms + shape.head


def trains_head(shape: Shape, adapter: str) -> bool:
    return adapter == "full" or (adapter == "lora+" and shape.tied)


def kept_bytes_a_token(shape: Shape, policy: str, dtype: str, adapter: str = "full") -> int:
    """What one layer leaves for its backward pass, on the device or the host, for each token."""
    at, d, a = PRECISIONS[dtype], shape.hidden, shape.attended
    sums = 4 * shape.heads  # log-sum-exp, float32
    if policy == "lean-thin":
        return at.residual * d
    if policy in ("lean", "offload"):
        return at.residual * d + at.compute * a + sums
    full, norms = adapter == "full", adapter != "lora"
    inputs = at.residual * 2 * d  # of both norms
    normed = at.residual * 2 * d if norms else 0  # what a norm's weight multiplies
    # what projections read: one tensor for several, but autocast makes each its own in 16 bits
    cast = at.compute < at.residual
    read = (5 if cast else 2) if full else (3 if cast else 1)
    mlp = (4 if shape.gated else 2) - (0 if full else 1)  # gate, its activation, up, and what the last product reads
    lora = 0 if full else 4 * LORA_RANK + (a if cast else 0)
    return inputs + normed + at.compute * (read * d + 2 * a + 2 * shape.keyed + mlp * shape.inner + lora) + sums + 8


def copied_bytes(shape: Shape, load: Load, policy: str, dtype: str, adapter: str = "full") -> int:
    """Copies of weights in 16 bits that a pass keeps; with several GPUs, also embedding and head, whole.

    Autocast keeps a copy of what is trained, where one device has all weights; autograd, of layers that keep everything.
    The head's gradient is whole too from the loss on.
    """
    at = PRECISIONS[dtype]
    cast = at.compute if at.compute < at.weights else 0
    if load.gpus > 1:
        outside = shape.head * (1 if shape.tied else 2) + (shape.head if trains_head(shape, adapter) else 0)
        return at.weights * outside + (cast * shape.body if policy == "none" else 0)
    cached = adapter == "full" or policy == "none"
    return cast * (shape.body + shape.head if cached else max(shape.layer_matrices, shape.head))


def working_bytes(shape: Shape, load: Load, policy: str, dtype: str, adapter: str = "full") -> int:
    """What the backward pass of one layer needs beside what was kept, the gradient of a weight in the making included.

    With several GPUs, its weights too: whole, with gradients and copies of the same size, or with the buffer they come in;
    or the gradient of the embedding, which is whole when all layers are done, if that is more.
    """
    work = _at_work(shape, load, policy, dtype, adapter)
    if load.gpus == 1:
        return work
    at, whole = PRECISIONS[dtype], shape.layer_matrices
    gathered = at.weights * whole * (2 if adapter == "full" else 1)
    if at.compute < at.weights and policy != "none":
        gathered += at.compute * whole
    embedding = 0 if adapter == "lora" or shape.tied else shape.head
    return max(gathered + work, 2 * at.weights * whole, at.weights * embedding)


def _at_work(shape: Shape, load: Load, policy: str, dtype: str, adapter: str) -> int:
    at, d, a, f = PRECISIONS[dtype], shape.hidden, shape.attended, shape.inner
    product = at.weights * shape.largest_matrix if adapter == "full" else 0
    if policy == "none":  # the gradients of an MLP's two inputs, where what its last product read is given back first
        widest = (2 if adapter == "full" else 3) * f
        if load.sequence > 1:  # gradient, queries, keys, values and output as heads of all tokens, and the gradients
            widest = max(widest, 3 * a + 3 * (a + 2 * shape.keyed))
        return load.tokens * (2 * at.residual * d + at.compute * widest) + product
    qkv = a + 2 * shape.keyed
    attention = a + 2 * qkv  # gradient of its output; queries, keys and values made again, and their gradients
    if load.on_gpu and shape.heads != shape.key_heads:
        attention += 4 * a  # kernels there take keys and values repeated for each head
    if load.sequence > 1:  # the same once more as heads of all tokens, attention's output too
        attention += 2 * a + 2 * qkv
    held = at.residual * d
    if policy == "lean-thin":
        held += at.compute * a + 4 * shape.heads
    if policy == "offload":  # the layer's own and the one that is on its way
        held += 2 * kept_bytes_a_token(shape, policy, dtype)
    tile = min(load.tokens, TILE) * (at.residual * 6 * d + at.compute * 7 * f) + product
    # attention runs over the whole text, with the tiles of the MLP before it and those of the projections after it
    return load.tokens * held + max(load.tokens * at.compute * attention, load.tokens * at.compute * qkv + tile)


def loss_bytes(shape: Shape, load: Load, dtype: str, adapter: str = "full") -> int:
    """A chunk of logits, over which its gradient is written.

    In 16 bits they stand there as computed, in float32 for their sum, and as the gradient; and the head's weights and
    their gradient in 16 bits beside their own.
    """
    at = PRECISIONS[dtype]
    rows = min(load.tokens, max(1, CHUNK_NUMBERS["cuda" if load.on_gpu else "cpu"] // shape.vocabulary))
    cast = at.compute < 4
    chunk = rows * (shape.vocabulary * (2 * at.compute + 4 if cast else at.compute) + 4 * at.residual * shape.hidden)
    return chunk + (at.compute * shape.head * (2 if trains_head(shape, adapter) else 1) if cast else 0)


def activation_bytes(
    shape: Shape, length: int, policy: str, dtype: str, adapter: str = "full", *, on_gpu: bool = True
) -> int:
    """All that one pass over `length` tokens needs beside weights, gradients and moments."""
    load = Load(tokens=length, passes=1, on_gpu=on_gpu)
    working = max(working_bytes(shape, load, policy, dtype, adapter), loss_bytes(shape, load, dtype, adapter))
    return _kept(shape, load, policy, dtype, adapter) + working


def memory_of(shape: Shape, load: Load, policy: str, dtype: str, adapter: str = "full") -> Memory:
    """What a pass holds as it turns back. Gradients are there from the first pass on, also from step to step."""
    at, gpus = PRECISIONS[dtype], load.gpus
    trained = trained_numbers(shape, adapter)
    added = 0 if adapter == "full" else trained_numbers(shape, "lora")
    return Memory(
        weights=at.weights * (shape.parameters + added) // gpus,
        copies=copied_bytes(shape, load, policy, dtype, adapter),
        gradients=at.weights * trained // gpus,
        optimizer=2 * at.weights * trained // gpus,
        kept=_kept(shape, load, policy, dtype, adapter),
        working=working_bytes(shape, load, policy, dtype, adapter),
        loss=loss_bytes(shape, load, dtype, adapter),
        host=_host_bytes(shape, load, policy, dtype, adapter),
    )


def _host_bytes(shape: Shape, load: Load, policy: str, dtype: str, adapter: str) -> int:
    """What is offloaded, which stays pinned, and what a save takes there: all that is trained and its moments once, and of
    several processes once more, for each makes the bytes of its file before it writes them."""
    if not load.on_gpu:
        return 0
    offloaded = load.tokens * shape.layers * kept_bytes_a_token(shape, policy, dtype) if policy == "offload" else 0
    saved = 3 * PRECISIONS[dtype].weights * trained_numbers(shape, adapter) // load.gpus
    return offloaded + saved * (1 if load.gpus == 1 else 2)


def floor_bytes_a_token(shape: Shape, compute: int = 2) -> int:
    """What the backward pass of attention must hold of one layer for each token, all of it in `compute` bytes."""
    return compute * (2 * shape.hidden + 4 * shape.attended + 4 * shape.keyed) + 4 * shape.heads


def cache_bytes_a_token(shape: Shape, compute: int = 2) -> int:
    """Keys and values of all layers, which reading a text takes and training does not."""
    return 2 * shape.layers * shape.keyed * compute


def _kept(shape: Shape, load: Load, policy: str, dtype: str, adapter: str) -> int:
    """Of all layers, with the last hidden state and the tables of the rotation."""
    at = PRECISIONS[dtype]
    layers = 0 if policy == "offload" else shape.layers * kept_bytes_a_token(shape, policy, dtype, adapter)
    return load.tokens * (layers + at.residual * (shape.hidden + 2 * shape.head_dim))
