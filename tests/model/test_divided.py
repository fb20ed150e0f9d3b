"""A model that FSDP2 divides over a group of one: what is gathered, copied and given back, in this process."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.distributed import HashStore  # pyright: ignore[reportPrivateImportUsage]
from torch.distributed.device_mesh import init_device_mesh
from transformers import Gemma2Config, Gemma2ForCausalLM

from ropewalk.checkpoint.folder import open_checkpoint
from ropewalk.errors import DataError
from ropewalk.model import ranked
from ropewalk.model.engine import Batch, Lean, Stock, autocast
from ropewalk.model.head import BodyAndHead
from ropewalk.model.lean import ATTENTION, EVERYTHING, INPUT, LeanEngine
from ropewalk.model.load import load_model
from ropewalk.model.ranked import divided, load_hollow
from ropewalk.model.ranks import ALL, Ranks
from ropewalk.model.sharding import local
from ropewalk.model.shared_scoring import SharedScorer
from ropewalk.model.view import layer_view
from ropewalk.planning.shapes import shape_of
from ropewalk.train.sharded_state import save_sharded
from tests.conftest import make_llama
from tests.live import Live, casts_of
from tests.ranks.memory import peak, resident

LAYERS = 4


@pytest.fixture(scope="module")
def group() -> Iterator[Ranks]:
    dist.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    yield Ranks(init_device_mesh("cpu", (1,), mesh_dim_names=(ALL,)))
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Path) -> Path:
    return make_llama(tmp_path_factory.mktemp("divided") / "model", tiny_tokenizer, num_hidden_layers=LAYERS)


def batch_of(tokens: int) -> Batch:
    inputs = torch.arange(tokens)[None] * 7 % 300
    return Batch(inputs, inputs.roll(-1, 1), torch.full((1, tokens), 1 / tokens))


def casts_held(model: torch.nn.Module, engine: Lean | Stock) -> int:
    """The most bytes that copies of the layers' matrices take at once while gradients are made, 16 bits a number."""
    shapes = [tuple(p.shape) for name, p in model.named_parameters() if ".layers." in name and p.ndim == 2]
    with Live(wanted=casts_of(shapes)) as live:
        engine.accumulate(batch_of(20))
    return live.most


@pytest.mark.parametrize(
    ("divide", "keep", "layers"),
    [(True, ATTENTION, 1), (True, INPUT, 1), (True, EVERYTHING, LAYERS), (False, ATTENTION, LAYERS)],
)
def test_copies_in_16_bits_go_with_the_layer_unless_autograd_or_one_process_keeps_them(
    folder: Path, group: Ranks, divide: bool, keep: str, layers: int
) -> None:
    """As `plan` counts them, to the byte: of a layer; of all where layers keep everything, or nothing is given back."""
    loaded = (load_hollow if divide else load_model)(open_checkpoint(folder), dtype="float32", device="cpu")
    weights = divided(loaded, group) if divide else None
    view = layer_view(loaded.model)
    assert view is not None
    engine = Lean(LeanEngine(loaded.model, view, [keep] * LAYERS, torch.bfloat16, weights), torch.bfloat16)
    shape = shape_of(loaded.model.config.to_dict())
    assert casts_held(loaded.model, engine) == 2 * layers * shape.layer_matrices


def test_copies_of_one_layer_are_those_of_the_weights_as_they_are_now(folder: Path, group: Ranks) -> None:
    """A second pass after the weights have changed gives the loss of the changed weights, by the same engine."""
    loaded = load_hollow(open_checkpoint(folder), dtype="float32", device="cpu")
    weights = divided(loaded, group)
    view = layer_view(loaded.model)
    assert view is not None
    engine = Lean(LeanEngine(loaded.model, view, [ATTENTION] * LAYERS, torch.bfloat16, weights), torch.bfloat16)
    with autocast(torch.device("cpu"), torch.bfloat16):  # a context around both, as a caller might have
        before = engine.accumulate(batch_of(20))
        with torch.no_grad():
            for parameter in loaded.model.parameters():
                local(parameter).mul_(0.5)
        after = engine.accumulate(batch_of(20))
    fresh = LeanEngine(loaded.model, view, [ATTENTION] * LAYERS, torch.bfloat16, weights)
    assert after == Lean(fresh, torch.bfloat16).accumulate(batch_of(20)) != before


def test_the_stock_engine_holds_copies_no_longer_than_autograd_does(folder: Path) -> None:
    """Layers that are computed twice leave nothing for autograd: a copy goes with the product it was made for."""
    model = load_model(open_checkpoint(folder), dtype="float32", device="cpu").model.train()
    matrices = shape_of(model.config.to_dict()).layer_matrices
    stock = Stock(model, BodyAndHead(model), torch.bfloat16, checkpointed=True)
    assert 0 < casts_held(model, stock) <= 2 * matrices


def test_a_family_without_an_engine_waits_in_the_hosts_memory(
    tmp_path: Path, tiny_tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it is to go, for FSDP2 takes it there a layer at a time. `meta` stands for a device that is not the host."""
    monkeypatch.setattr(ranked, "chosen_device", torch.device)  # which refuses it for a model that is to be used
    config = Gemma2Config(
        vocab_size=300, hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, max_position_embeddings=64,
    )  # fmt: skip
    Gemma2ForCausalLM(config).save_pretrained(tmp_path)
    for file in tiny_tokenizer.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    loaded = load_hollow(open_checkpoint(tmp_path), dtype="float32", device="meta")
    assert loaded.device.type == "meta"
    assert {tensor.device.type for tensor in loaded.model.parameters()} == {"cpu"}


def test_the_search_for_a_nan_keeps_nothing_for_a_backward_pass(folder: Path, group: Ranks) -> None:
    loaded = load_hollow(open_checkpoint(folder), dtype="float32", device="cpu")
    weights = divided(loaded, group)
    loaded.model.eval()
    scorer = SharedScorer(loaded, weights, group, 4096)
    local(loaded.model.get_parameter("model.layers.1.mlp.down_proj.weight").detach())[0] = float("nan")
    graphs: list[bool] = []
    loaded.model.get_submodule("lm_head").register_forward_hook(
        lambda module, given, made: graphs.append(made.requires_grad)
    )
    with pytest.raises(DataError, match=r"what layer 2 of 4 gives, at position 0 \(what model.layers.1.mlp.down_proj"):
        scorer.target_losses([list(range(2, 20))], [range(1, 18)])
    assert graphs and not any(graphs)


def test_a_rank_makes_the_bytes_of_its_save_before_it_writes_them(tmp_path: Path, group: Ranks) -> None:
    """The part of `plan`'s figure for the host that comes beside the copies of what lies on a GPU: 12 bytes a number."""
    module = torch.nn.Linear(2048, 2048, bias=False)
    optimizer = torch.optim.AdamW(module.parameters())
    module.weight.grad = torch.ones_like(module.weight)
    optimizer.step()
    (tmp_path / "saves").mkdir()
    before = resident()
    with peak() as most:
        save_sharded(tmp_path, 1, module, optimizer, {}, 1, group)
    assert (most[0] - before) / module.weight.numel() == pytest.approx(12, rel=0.1)
