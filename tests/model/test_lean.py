"""The lean engine's loss and gradients equal the stock model's, whatever layers keep and however rows are cut."""

import copy

import pytest
import torch
from transformers import LlamaConfig, MistralConfig, Olmo2Config, Qwen2Config, Qwen3Config, SmolLM3Config

from ropewalk.model import lean as lean_module
from ropewalk.model import view as view_module
from ropewalk.model.adapters import attached, chosen_adapter
from ropewalk.model.attention import CpuFlash, OverDocuments, Recomputed, chosen_kernel
from ropewalk.model.engine import Batch, Lean, Stock, lean_engine
from ropewalk.model.head import BodyAndHead
from ropewalk.model.lean import ATTENTION, EVERYTHING, HOST, INPUT
from tests.model.test_layers import SIDES, random_model

NO_HEAD_DIM = {k: v for k, v in SIDES.items() if k != "head_dim"}
CONFIGS = {
    "llama": LlamaConfig(**SIDES),
    "llama, biases, tied": LlamaConfig(**SIDES, attention_bias=True, mlp_bias=True, tie_word_embeddings=True),
    "llama, one head of keys": LlamaConfig(**SIDES | {"num_key_value_heads": 1}),
    "llama, as many heads of keys": LlamaConfig(**SIDES | {"num_key_value_heads": 4}),
    "llama, yarn": LlamaConfig(
        **SIDES,
        rope_parameters={"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "rope_theta": 1e4},
    ),
    "mistral": MistralConfig(**SIDES, sliding_window=None),
    "qwen2": Qwen2Config(**NO_HEAD_DIM),
    "qwen3": Qwen3Config(**SIDES, tie_word_embeddings=True),
    "smollm3": SmolLM3Config(**SIDES, no_rope_layers=[1, 0, 1], pad_token_id=0),
    "olmo2": Olmo2Config(**NO_HEAD_DIM, pad_token_id=0),
}  # fmt: skip
KEEPS = [EVERYTHING, ATTENTION, INPUT, HOST]
LAYERS = SIDES["num_hidden_layers"]


def random_batch(rows: int = 2, tokens: int = 40, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, 90, (rows, tokens + 1), generator=generator)
    return Batch(ids[:, :-1], ids[:, 1:], torch.rand(rows, tokens, generator=generator))


def engines(model) -> tuple[Stock, Lean]:
    parts = BodyAndHead(model)
    lean = lean_engine(model, parts, torch.float32)
    assert lean is not None
    return Stock(model, parts, torch.float32, checkpointed=False), Lean(lean, torch.float32)


def gradients(model, engine, batch: Batch) -> tuple[float, dict[str, torch.Tensor]]:
    model.zero_grad()
    loss = engine.accumulate(batch)
    return loss, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_agree(model, stock: Stock, lean: Lean, batch: Batch) -> None:
    """Loss to 1e-6, every gradient to 1e-5 of its norm."""
    theirs, their_gradients = gradients(model, stock, batch)
    ours, our_gradients = gradients(model, lean, batch)
    assert abs(ours - theirs) <= 1e-6 * abs(theirs)
    wanted = {name for name, p in model.named_parameters() if p.requires_grad}
    assert set(our_gradients) == set(their_gradients) == wanted
    for name, their in their_gradients.items():
        assert their.norm() > 0
        assert (our_gradients[name] - their).norm() <= 1e-5 * their.norm(), name


@pytest.mark.parametrize("keep", KEEPS)
@pytest.mark.parametrize("name", CONFIGS)
def test_gradients_equal_the_stock_model_s(name: str, keep: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lean_module, "TILE", 26)  # four tiles, the last one short
    model = random_model(CONFIGS[name]).train()
    stock, lean = engines(model)
    lean.engine.keeps = [keep] * LAYERS
    assert_agree(model, stock, lean, random_batch())


@pytest.mark.parametrize("keeps", [[INPUT, ATTENTION, EVERYTHING], [HOST, HOST, EVERYTHING]])
def test_layers_may_keep_different_things(keeps: list[str]) -> None:
    model = random_model(CONFIGS["qwen3"]).train()
    stock, lean = engines(model)
    lean.engine.keeps = keeps
    assert_agree(model, stock, lean, random_batch())


@pytest.mark.parametrize("keep", [EVERYTHING, ATTENTION])
@pytest.mark.parametrize("adapter", ["lora", "lora+"])
@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3", "llama, biases, tied"])
def test_adapters_get_their_gradients_and_frozen_weights_none(name: str, adapter: str, keep: str) -> None:
    model = random_model(copy.deepcopy(CONFIGS[name])).train()
    attached(model, chosen_adapter(adapter, rank=2), 0)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if "lora_" in parameter_name:  # B begins as zeros, which would hide what A gets
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    stock, lean = engines(model)
    lean.engine.keeps = [keep] * LAYERS
    assert_agree(model, stock, lean, random_batch())


@pytest.mark.parametrize("keep", [EVERYTHING, ATTENTION, INPUT])
def test_documents_see_only_themselves(keep: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the stock model under a mask; rows are cut at other places, one not at all."""
    monkeypatch.setattr(lean_module, "TILE", 24)
    model = random_model(CONFIGS["llama"]).train()
    stock, lean = engines(model)
    lean.engine.keeps = [keep] * LAYERS
    plain = random_batch(rows=3)
    cut = Batch(plain.inputs, plain.targets, plain.shares, starts=[[0, 7, 8, 30], [0], [0, 39]])
    assert_agree(model, stock, lean, cut)
    assert gradients(model, lean, cut)[0] != pytest.approx(gradients(model, lean, plain)[0], rel=1e-4)


@pytest.mark.parametrize("keep", [EVERYTHING, ATTENTION])
def test_skipped_positions_rotate_and_hide_nothing(keep: str) -> None:
    """Against the stock forward pass with an explicit causal mask: without one, transformers takes skips for packing."""
    model = random_model(CONFIGS["llama"]).train()
    stock, lean = engines(model)
    lean.engine.keeps = [keep] * LAYERS
    plain = random_batch()
    positions = torch.arange(40).repeat(2, 1)
    positions[0, 11:] += 100
    positions[1, 25:] += 37
    skipped = Batch(plain.inputs, plain.targets, plain.shares, positions=positions)
    assert_agree(model, stock, lean, skipped)
    causal = torch.zeros(40, 40).masked_fill(torch.ones(40, 40).triu(1).bool(), float("-inf"))[None, None]
    with torch.no_grad():
        logits = model(plain.inputs, position_ids=positions, attention_mask=causal.expand(2, 1, 40, 40)).logits
        losses = torch.nn.functional.cross_entropy(logits.mT, plain.targets, reduction="none")
    assert gradients(model, lean, skipped)[0] == pytest.approx((losses * plain.shares).sum().item(), rel=1e-5)


def test_targets_without_weight_make_no_logits_and_change_nothing() -> None:
    model = random_model(CONFIGS["llama"]).train()
    stock, lean = engines(model)
    batch = random_batch()
    batch.shares[:, :29] = 0.0
    assert_agree(model, stock, lean, batch)


def test_gradients_add_up_over_batches() -> None:
    model = random_model(CONFIGS["qwen2"]).train()
    _, lean = engines(model)
    both = random_batch(rows=2)
    _, whole = gradients(model, lean, both)
    model.zero_grad()
    for row in range(2):
        cut = slice(row, row + 1)
        lean.accumulate(Batch(both.inputs[cut], both.targets[cut], both.shares[cut]))
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, whole[name], rtol=1e-4, atol=1e-6)


def test_fifty_steps_give_the_stock_model_s_losses() -> None:
    """1e-4 nats, as two float32 runs differ."""
    first = random_model(CONFIGS["llama"]).train()
    second = copy.deepcopy(first)
    curves = []
    for model, which in ((first, 0), (second, 1)):
        engine = engines(model)[which]
        tuner = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.0)
        losses = []
        for step in range(50):
            batch = random_batch(seed=step % 5)
            model.zero_grad()
            losses.append(engine.accumulate(Batch(batch.inputs, batch.targets, torch.full(batch.shares.shape, 1 / 80))))
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            tuner.step()
        curves.append(losses)
    assert curves[0][-1] < curves[0][0] - 0.5
    assert max(abs(a - b) for a, b in zip(*curves, strict=True)) <= 1e-4


def test_it_is_not_used_where_it_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model(CONFIGS["llama"])
    parts = BodyAndHead(model)
    assert lean_engine(model, parts, torch.float32) is not None
    monkeypatch.setattr(view_module, "_turned", lambda x, cos, sin, way: x)
    assert lean_engine(model, parts, torch.float32) is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_cpu_kernel_is_chosen_and_a_wrong_one_is_not(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(chosen_kernel(torch.device("cpu"), dtype), CpuFlash)
    right = CpuFlash.backward
    monkeypatch.setattr(CpuFlash, "backward", lambda *args: tuple(1.1 * grad for grad in right(*args)))
    assert isinstance(chosen_kernel(torch.device("cpu"), dtype), Recomputed)


@pytest.mark.parametrize("documents", [False, True])
def test_kernels_agree(documents: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    query, grad = (torch.randn(2, 4, 30, 8, generator=generator) for _ in range(2))
    keys, values = (torch.randn(2, 2, 30, 8, generator=generator) for _ in range(2))
    results = []
    for kernel in (CpuFlash(), Recomputed()):
        over = OverDocuments(kernel, [[0, 5, 17], [0]]) if documents else kernel
        out, state = over.forward(query, keys, values, 0.3)
        results.append((out, *over.backward(grad, query, keys, values, out, state, 0.3)))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
