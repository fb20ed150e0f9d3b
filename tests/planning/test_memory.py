"""The memory of a step, against what autograd keeps of real models, and against the figures of the formulas by hand."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from ropewalk.model import loss
from ropewalk.model.adapters import ADAPTERS as REAL_ADAPTERS
from ropewalk.model.adapters import RANK, attached, chosen_adapter
from ropewalk.planning import memory
from ropewalk.planning.memory import (
    ADAPTERS,
    POLICIES,
    Load,
    activation_bytes,
    cache_bytes_a_token,
    copied_bytes,
    floor_bytes_a_token,
    kept_bytes_a_token,
    memory_of,
    trained_numbers,
    working_bytes,
)
from ropewalk.planning.shapes import FAMILIES, paper_config, shape_of
from ropewalk.train import loop

TOKENS = 512
SIDES = {
    "vocab_size": 101, "hidden_size": 64, "intermediate_size": 100, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 24, "max_position_embeddings": 1024, "pad_token_id": 0,
}  # fmt: skip
LLAMA_7B = shape_of(paper_config("llama-7b"))
HEAD_7B, LAYER_7B = 32000 * 4096, 4 * 4096**2 + 3 * 4096 * 11008
LLAMA_8B = shape_of({"model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
                     "num_key_value_heads": 8, "intermediate_size": 14336, "vocab_size": 128256})  # fmt: skip
LLAMA_1B = shape_of({"model_type": "llama", "hidden_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 32,
                     "num_key_value_heads": 8, "intermediate_size": 8192, "vocab_size": 128256})  # fmt: skip


def autograd_keeps(layers: int, dtype: torch.dtype, adapter: str) -> float:
    """Bytes a token that the stock model's forward pass leaves for its backward pass, weights not counted."""
    config = AutoConfig.for_model("llama", **(SIDES | {"num_hidden_layers": layers}))
    model = AutoModelForCausalLM.from_config(config).train()
    if adapter != "full":
        attached(model, chosen_adapter(adapter), 0)
    storages: dict[int, tuple[int, torch.Tensor]] = {}
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}

    def seen(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own and TOKENS in tensor.shape:  # a weight cast to 16 bits has no such side
            storages.setdefault(storage.data_ptr(), (storage.nbytes(), tensor))
        return tensor

    tokens = torch.arange(TOKENS)[None] % 100
    with (
        torch.autograd.graph.saved_tensors_hooks(seen, lambda tensor: tensor),
        torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype is torch.bfloat16),
    ):
        embedded = model.get_input_embeddings()(tokens)
        if adapter == "lora":  # nothing below the first layer asks for a gradient
            embedded.requires_grad_()
        kept = model.base_model(inputs_embeds=embedded, use_cache=False).last_hidden_state
    assert kept.shape[1] == TOKENS
    return sum(size for size, _ in storages.values()) / TOKENS


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_without_recomputation_a_layer_keeps_what_autograd_keeps(dtype: str, adapter: str) -> None:
    """Exactly: the difference between a model of two layers and one of a single layer is one layer."""
    kind = getattr(torch, dtype)
    layer = autograd_keeps(2, kind, adapter) - autograd_keeps(1, kind, adapter)
    assert kept_bytes_a_token(shape_of(SIDES | {"model_type": "llama"}), "none", dtype, adapter) == layer


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("model_type", FAMILIES)
def test_what_is_trained_is_counted_as_it_is_attached(model_type: str, adapter: str) -> None:
    sides = {key: value for key, value in SIDES.items() if key != "head_dim" or model_type not in ("gpt_neox", "phi3")}
    config = AutoConfig.for_model(model_type, **sides)
    if model_type == "gpt_neox":
        sides = {key: value for key, value in sides.items() if key != "num_key_value_heads"}
        config = AutoConfig.for_model(model_type, **sides)
    trained = attached(AutoModelForCausalLM.from_config(config), chosen_adapter(adapter), 0)
    assert trained_numbers(shape_of(config.to_dict()), adapter) == trained.parameters


def test_constants_are_those_of_the_modules_they_speak_of() -> None:
    assert (ADAPTERS, memory.LORA_RANK) == (REAL_ADAPTERS, RANK)
    assert loop.MICRO_TOKENS == memory.MICRO_TOKENS
    assert loss.CHUNK_NUMBERS == memory.CHUNK_NUMBERS


def test_the_floor_of_8b_is_56_kilobytes_a_token() -> None:
    """(2d + 2(a + 2k) + 2a) x 2 + 4 x heads = 57,472 for 8B and 28,800 for 1B; 8 KiB in float32 at width 256."""
    assert floor_bytes_a_token(LLAMA_8B) == (2 * 4096 + 2 * (4096 + 2 * 1024) + 2 * 4096) * 2 + 128
    assert round(floor_bytes_a_token(LLAMA_8B) / 1024) == 56 and round(floor_bytes_a_token(LLAMA_1B) / 1024) == 28
    tiny = shape_of({"model_type": "llama", "hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4,
                     "num_key_value_heads": 2, "intermediate_size": 688, "vocab_size": 4096})  # fmt: skip
    assert floor_bytes_a_token(tiny, 4) == 8 * 1024 + 16


def test_keys_and_values_of_published_models() -> None:
    assert cache_bytes_a_token(LLAMA_7B) == 512 * 1024
    assert cache_bytes_a_token(LLAMA_8B) == 128 * 1024
    assert cache_bytes_a_token(LLAMA_1B) == 32 * 1024


def test_full_tuning_in_float32_holds_16_bytes_a_parameter() -> None:
    held = memory_of(LLAMA_7B, Load(tokens=2048, passes=2, on_gpu=False), "lean", "float32")
    assert held.weights + held.gradients + held.optimizer == 16 * LLAMA_7B.parameters
    assert held.copies == 0


def test_gpus_that_share_a_sequence_hold_their_tokens_part_of_what_is_kept() -> None:
    whole, half = (memory_of(LLAMA_7B, Load(tokens=65536 // n, gpus=2, sequence=n), "lean", "bfloat16") for n in (1, 2))
    assert half.kept * 2 == pytest.approx(whole.kept, rel=1e-3)
    assert (half.weights, half.gradients, half.optimizer) == (whole.weights, whole.gradients, whole.optimizer)
    assert (
        whole.working / 2 < half.working < whole.working
    )  # attention holds both the tokens' heads and the heads' tokens


def test_several_gpus_share_the_state_and_nothing_of_a_sequence() -> None:
    one, eight = (memory_of(LLAMA_7B, Load(tokens=8192, passes=2, gpus=n), "lean", "bfloat16") for n in (1, 8))
    assert 8 * eight.weights == pytest.approx(one.weights) and 8 * eight.optimizer == pytest.approx(one.optimizer)
    assert (eight.kept, eight.loss) == (one.kept, one.loss)
    assert 0 < eight.copies < one.copies and one.working < eight.working  # layers gathered one after the other


@pytest.mark.parametrize(
    ("adapter", "dtype", "policy", "heads", "copies", "layer"),
    [
        (
            "full",
            "bfloat16",
            "lean",
            3,
            0,
            4 + 4 + 2,
        ),  # embedding, head and its gradient; a layer, its gradients and copy
        ("full", "bfloat16", "none", 3, 32, 4 + 4),  # autograd has the copies of all
        ("full", "float32", "none", 3, 0, 4 + 4),
        ("lora+", "bfloat16", "lean", 2, 0, 4 + 2),
        ("lora", "float32", "lean", 2, 0, 4),
    ],
)
def test_what_several_gpus_gather_is_in_the_weights_own_bytes(
    adapter: str, dtype: str, policy: str, heads: int, copies: int, layer: int
) -> None:
    """Of LLaMA 7B: heads of 32,000 x 4,096 in float32, copies of layers in 16 bits, and bytes of a layer at work."""
    one, eight = (Load(tokens=65536, gpus=gpus) for gpus in (1, 8))
    assert copied_bytes(LLAMA_7B, eight, policy, dtype, adapter) == heads * 4 * HEAD_7B + copies * 2 * LAYER_7B
    alone = working_bytes(LLAMA_7B, one, policy, dtype, adapter)
    assert working_bytes(LLAMA_7B, eight, policy, dtype, adapter) == alone + layer * LAYER_7B


def test_a_layer_is_there_twice_as_it_is_gathered() -> None:
    """With little to do it needs most then; but for full tuning, where gradients come to the same."""
    for adapter, dtype in (("lora", "bfloat16"), ("lora+", "float32")):
        assert working_bytes(LLAMA_7B, Load(tokens=1, gpus=8), "lean", dtype, adapter) == 8 * LAYER_7B
    assert working_bytes(LLAMA_7B, Load(tokens=1, gpus=8), "lean", "float32") > 8 * LAYER_7B


def test_a_small_layer_makes_way_for_the_gradient_of_a_large_embedding() -> None:
    """Which comes when all layers are done, if it is no head and is trained."""
    sides, load = SIDES | {"model_type": "llama", "vocab_size": 2**20}, Load(tokens=64, gpus=2)
    assert working_bytes(shape_of(sides), load, "lean", "float32") == 4 * 64 * 2**20
    for tied, adapter in ((True, "full"), (False, "lora")):
        held = working_bytes(shape_of(sides | {"tie_word_embeddings": tied}), load, "lean", "float32", adapter)
        assert held < 64 * 2**20


def test_a_save_is_in_the_hosts_memory_beside_what_is_offloaded() -> None:
    """A weight and two moments of 4 bytes; the file's own bytes beside them where several processes write."""
    one, eight = (memory_of(LLAMA_7B, Load(tokens=8192, gpus=n), "lean", "bfloat16").host for n in (1, 8))
    assert (one, eight) == (12 * LLAMA_7B.parameters, 24 * LLAMA_7B.parameters // 8)
    offloaded = memory_of(LLAMA_7B, Load(tokens=8192), "offload", "bfloat16").host - one
    assert offloaded == 8192 * 32 * kept_bytes_a_token(LLAMA_7B, "offload", "bfloat16")
    assert memory_of(LLAMA_7B, Load(tokens=8192, on_gpu=False), "lean", "float32").host == 0  # it has no other


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_policies_keep_less_and_less(dtype: str) -> None:
    sizes = [activation_bytes(LLAMA_8B, 65536, policy, dtype) for policy in POLICIES]
    assert sizes == sorted(sizes, reverse=True)
    lean, thin = (kept_bytes_a_token(LLAMA_8B, policy, dtype) for policy in ("lean", "lean-thin"))
    assert lean - thin == memory.PRECISIONS[dtype].compute * 4096 + 4 * 32  # attention's output and its log-sum-exp


def test_gradients_stay_from_pass_to_pass() -> None:
    once, often = (memory_of(LLAMA_7B, Load(tokens=65536, passes=n), "none", "bfloat16") for n in (1, 2))
    assert once == often and once.gradients == 4 * LLAMA_7B.parameters


@pytest.mark.parametrize(("vocabulary", "rows"), [(4096, 1000), (32000, 262)])
def test_the_loss_holds_a_chunk_of_logits(vocabulary: int, rows: int) -> None:
    """In float32 once: the gradient is written over them. A chunk is 2**23 numbers on a CPU, or all 1,000 tokens."""
    shape = shape_of(SIDES | {"model_type": "llama", "vocab_size": vocabulary})
    held = memory_of(shape, Load(tokens=1000, on_gpu=False), "lean", "float32").loss
    assert held == rows * (4 * vocabulary + 16 * 64)


def test_lora_has_moments_for_what_is_trained_alone() -> None:
    held = memory_of(LLAMA_7B, Load(tokens=8192, passes=8), "lean", "bfloat16", "lora")
    lora = 32 * 8 * 4 * (4096 + 4096)
    assert (held.gradients, held.optimizer) == (4 * lora, 8 * lora)
    assert held.weights == 4 * (LLAMA_7B.parameters + lora)


def test_kernels_on_a_gpu_repeat_keys_for_each_head() -> None:
    """Keys, values and their gradients are as wide as the queries then; where heads are not grouped they are anyway."""
    for shape, wider in ((LLAMA_8B, 4 * 4096), (LLAMA_7B, 0)):
        cpu, gpu = (working_bytes(shape, Load(tokens=100_000, on_gpu=on), "lean", "float32") for on in (False, True))
        assert gpu - cpu == 100_000 * 4 * wider


def test_attention_of_a_whole_text_is_what_a_layer_at_work_needs() -> None:
    """In 16 bits with a 16-bit hidden state that is the floor less what was kept, of long texts: 2d less of 2 bytes."""
    tokens = 2**17
    held = working_bytes(LLAMA_8B, Load(tokens=tokens, on_gpu=False), "lean", "bfloat16")
    kept = kept_bytes_a_token(LLAMA_8B, "lean", "bfloat16")
    wide = 2 * 2 * 4096  # hidden state and its gradient are float32 under autocast
    assert held + tokens * kept == tokens * (floor_bytes_a_token(LLAMA_8B) + wide)
