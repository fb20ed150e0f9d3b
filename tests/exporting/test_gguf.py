"""A GGUF file holds the model: the same numbers, and the same logits through llama.cpp's graph in numpy."""

import json
import shutil
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch

from ropewalk.errors import CheckpointError, OutputError, RopeError
from ropewalk.exporting.export import export, planned_export
from ropewalk.exporting.tensors import neighbouring
from ropewalk.extension import extend
from ropewalk.record import read_run
from tests.conftest import config_of, make_llama
from tests.exporting.graph import Graph

IDS = np.random.default_rng(5).integers(2, 300, 150).tolist()  # beyond a window of 64 and its double

SIDES = {
    "vocab_size": 300, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 3,
    "num_key_value_heads": 1, "max_position_embeddings": 64, "initializer_range": 0.2, "bos_token_id": 0,
    "eos_token_id": 1,
}  # fmt: skip


def make(family: str, folder: Path, tokenizer: Path, dtype: torch.dtype = torch.float32, **config: Any) -> Path:
    """A random model of a family, saved as transformers saves it; biases and norms are random too."""
    import transformers

    torch.manual_seed(3)
    kind = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3", "gemma": "Gemma"}[family]
    own = {"mistral": {"sliding_window": None}, "qwen3": {"head_dim": 16}, "llama": {"head_dim": 16}}.get(family, {})
    settings = getattr(transformers, kind + "Config")(**(SIDES | own | config))
    model = getattr(transformers, kind + "ForCausalLM")(settings)
    for name, parameter in model.named_parameters():
        if name.endswith("bias") or "norm" in name:
            torch.nn.init.normal_(parameter, 1.0 if "norm" in name else 0.0, 0.3)
    model.to(dtype).save_pretrained(folder)
    for file in tokenizer.iterdir():
        shutil.copyfile(file, folder / file.name)
    return folder


def exported(model: Path, out: Path, **options: Any) -> Graph:
    run = export(model, out=out, **options)
    return Graph(out / run.resolved["file"])


def stock_logits(folder: Path) -> np.ndarray:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    with torch.no_grad():
        return model(torch.tensor([IDS])).logits[0].numpy()


def assert_same_logits(graph: Graph, folder: Path) -> None:
    ours, theirs = graph.logits(IDS), stock_logits(folder)
    # float32 in transformers against float64 here: a few units in the sixth digit of the largest logit
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-4 * np.abs(theirs).max())


def with_rope(model: Path, folder: Path, window: int = 256, **block: Any) -> Path:
    """A copy whose config says another rotation."""
    shutil.copytree(model, folder)
    config = config_of(folder) | {"max_position_embeddings": window, "rope_scaling": None}
    config["rope_parameters"] = {"rope_theta": 10000.0, **block}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module", params=["llama", "mistral", "qwen2", "qwen3"])
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Path) -> Path:
    return make(request.param, tmp_path_factory.mktemp("families") / request.param, tiny_tokenizer)


@pytest.fixture(scope="module")
def qwen2(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Path) -> Path:
    return make("qwen2", tmp_path_factory.mktemp("qwen") / "qwen2", tiny_tokenizer)


@pytest.mark.parametrize("method", ["none", "pi", "ntk", "yarn"])
def test_logits_equal_those_of_transformers(tiny: Path, tmp_path: Path, method: str) -> None:
    longer = tmp_path / "longer"
    extend(tiny, to=256, out=longer, method=method)
    graph = exported(longer, tmp_path / "out")
    assert_same_logits(graph, longer)
    assert graph.key("context_length") == 256


LLAMA3 = {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
ORIGINAL = {"original_max_position_embeddings": 64}
DIVISORS = np.linspace(1.0, 4.0, 4).tolist()
BY_DIVISORS = {
    "llama3": LLAMA3 | ORIGINAL,
    "other betas": {"rope_type": "yarn", "factor": 4.0, "beta_fast": 8.0, "beta_slow": 2.0} | ORIGINAL,
    "not truncated": {"rope_type": "yarn", "factor": 4.0, "truncate": False} | ORIGINAL,
    "longrope": {"rope_type": "longrope", "short_factor": DIVISORS, "long_factor": DIVISORS, "attention_factor": 1.2}
    | ORIGINAL,
}


@pytest.mark.parametrize("block", BY_DIVISORS.values(), ids=BY_DIVISORS.keys())
def test_llama_carries_any_scaling_by_divisors(tiny_llama: Path, tmp_path: Path, block: dict) -> None:
    model = with_rope(tiny_llama, tmp_path / "model", **block)
    graph = exported(model, tmp_path / "out")
    assert_same_logits(graph, model)
    assert graph.tensors["rope_freqs.weight"].shape == (4,)
    assert graph.key("rope.scaling.type") is None  # a factor there would divide a second time


@pytest.mark.parametrize("block", BY_DIVISORS.values(), ids=BY_DIVISORS.keys())
def test_qwen_refuses_what_its_graph_cannot_read(qwen2: Path, tmp_path: Path, block: dict) -> None:
    model = with_rope(qwen2, tmp_path / "model", **block)
    with pytest.raises(RopeError, match="does not use"):
        export(model, out=tmp_path / "out")


@pytest.mark.parametrize("attention_factor", [1.0, 1.3])
def test_another_temperature_of_yarn_goes_by_attn_factor(tiny: Path, tmp_path: Path, attention_factor: float) -> None:
    block = {"rope_type": "yarn", "factor": 4.0, "attention_factor": attention_factor} | ORIGINAL
    model = with_rope(tiny, tmp_path / "model", **block)
    graph = exported(model, tmp_path / "out")
    assert_same_logits(graph, model)
    assert graph.key("rope.scaling.attn_factor") == pytest.approx(attention_factor / (1 + 0.1 * np.log(4)))


@pytest.mark.parametrize(
    ("method", "keys"),
    [
        ("none", {"rope.scaling.type": None, "rope.scaling.factor": None, "rope.freq_base": 10000.0}),
        ("pi", {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0}),
        ("ntk", {"rope.scaling.type": None, "rope.freq_base": pytest.approx(10000.0 * 4 ** (8 / 6))}),
        ("yarn", {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.attn_factor": None,
                  "rope.scaling.original_context_length": 64, "rope.scaling.yarn_beta_fast": 32.0}),
    ],
)  # fmt: skip
def test_keys_of_each_method(tiny_llama: Path, tmp_path: Path, method: str, keys: dict) -> None:
    extend(tiny_llama, to=256, out=tmp_path / "longer", method=method)
    graph = exported(tmp_path / "longer", tmp_path / "out")
    assert {key: graph.key(key) for key in keys} == keys
    assert "rope_freqs.weight" not in graph.tensors


def test_whole_numbers_in_config_go_out_as_floats(tiny_llama: Path, tmp_path: Path) -> None:
    """llama.cpp stops at a factor that is stored as an integer."""
    block = {"rope_type": "yarn", "factor": 4, "beta_fast": 32, "beta_slow": 1, "attention_factor": 2} | ORIGINAL
    export(with_rope(tiny_llama, tmp_path / "model", **block), out=tmp_path / "out")
    fields = gguf.GGUFReader(tmp_path / "out" / "model.gguf").fields
    kinds = {key: field.types[0].name for key, field in fields.items() if "rope" in key}
    assert kinds.pop("llama.rope.scaling.type") == "STRING"
    lengths = {"llama.rope.dimension_count", "llama.rope.scaling.original_context_length"}
    assert {key for key, kind in kinds.items() if kind == "UINT32"} == lengths
    assert {kind for key, kind in kinds.items() if key not in lengths} == {"FLOAT32"}


def test_every_tensor_is_the_source_after_undoing_the_order_of_rows(tiny: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    graph = exported(tiny, tmp_path / "out")
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[graph.arch.upper()], 2)
    source = load_file(tiny / "model.safetensors")
    for name, tensor in source.items():
        out = graph.tensors.pop(names.get_name(name, try_suffixes=(".weight", ".bias")))
        if graph.arch == "llama" and ("q_proj" in name or "k_proj" in name):
            heads = 3 if "q_proj" in name else 1
            out = out.reshape(heads, -1, 2, *out.shape[1:]).swapaxes(1, 2).reshape(out.shape)
        np.testing.assert_array_equal(out, tensor)
    assert not graph.tensors


def test_sides_that_llama_cpp_would_guess_wrong(tiny: Path, tmp_path: Path) -> None:
    graph, config = exported(tiny, tmp_path / "out"), config_of(tiny)
    head_dim = config.get("head_dim") or 8
    wanted = {
        "vocab_size": 300, "block_count": 2, "embedding_length": 24, "feed_forward_length": 40,
        "attention.head_count": 3, "attention.head_count_kv": 1, "attention.key_length": head_dim,
        "attention.value_length": head_dim, "rope.dimension_count": head_dim,
        "attention.layer_norm_rms_epsilon": pytest.approx(config["rms_norm_eps"]),
    }  # fmt: skip
    assert {key: graph.key(key) for key in wanted} == wanted


def test_tied_embeddings_leave_the_output_out(tmp_path: Path, tiny_tokenizer: Path) -> None:
    model = make("qwen3", tmp_path / "tied", tiny_tokenizer, tie_word_embeddings=True)
    graph = exported(model, tmp_path / "out")
    assert "output.weight" not in graph.tensors
    assert_same_logits(graph, model)


def test_biases_of_llama_are_reordered_too(tmp_path: Path, tiny_tokenizer: Path) -> None:
    model = make("llama", tmp_path / "biased", tiny_tokenizer, attention_bias=True, mlp_bias=True)
    assert_same_logits(exported(model, tmp_path / "out"), model)


@pytest.mark.parametrize(("stored", "asked"), [("bfloat16", None), ("bfloat16", "float16"), ("float16", "bfloat16"),
                                               ("float32", "float16"), ("float32", "bfloat16"), ("bfloat16", "float32")])  # fmt: skip
def test_dtypes(tmp_path: Path, tiny_tokenizer: Path, stored: str, asked: str | None) -> None:
    from safetensors.torch import load_file

    model = make("qwen2", tmp_path / "model", tiny_tokenizer, getattr(torch, stored))
    run = export(model, out=tmp_path / "out", dtype=asked)
    reader = gguf.GGUFReader(tmp_path / "out" / "model.gguf")
    kinds = {t.name: t.tensor_type.name for t in reader.tensors}
    matrix = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}[asked or stored]
    assert {kinds["token_embd.weight"], kinds["blk.1.ffn_up.weight"]} == {matrix}
    assert {kinds["output_norm.weight"], kinds["blk.1.attn_q.bias"]} == {"F32"}
    assert run.resolved["dtypes"] == sorted({matrix, "F32"})
    source = load_file(model / "model.safetensors")["model.embed_tokens.weight"]
    rounded = source.to(getattr(torch, asked or stored)).float().numpy()  # torch rounds to the nearest, ties to even
    np.testing.assert_array_equal(Graph(tmp_path / "out" / "model.gguf").tensors["token_embd.weight"], rounded)


def test_a_number_beyond_float16_is_refused(tmp_path: Path, tiny_tokenizer: Path) -> None:
    from safetensors.torch import load_file, save_file

    model = make("llama", tmp_path / "model", tiny_tokenizer, torch.bfloat16)
    tensors = load_file(model / "model.safetensors")
    tensors["lm_head.weight"][5, 7] = 1e5
    save_file(tensors, model / "model.safetensors")
    with pytest.raises(CheckpointError, match="float16 ends at 65504"):
        export(model, out=tmp_path / "out", dtype="float16")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_neighbours_turn_as_halves_did() -> None:
    """q . k of any two positions is the same: halves before, neighbours after."""
    rng = np.random.default_rng(0)
    q_D, k_D, angle_F = rng.normal(size=8), rng.normal(size=8), rng.normal(size=4)

    def turned(x: np.ndarray, pairs: list[tuple[int, int]]) -> np.ndarray:
        out = x.copy()
        for (a, b), angle in zip(pairs, angle_F, strict=True):
            out[a], out[b] = x[a] * np.cos(angle) - x[b] * np.sin(angle), x[a] * np.sin(angle) + x[b] * np.cos(angle)
        return out

    halves, neighbours = [(j, j + 4) for j in range(4)], [(2 * j, 2 * j + 1) for j in range(4)]
    before = turned(q_D, halves) @ k_D
    assert turned(neighbouring(q_D, 1), neighbours) @ neighbouring(k_D, 1) == pytest.approx(before)


def changed(model: Path, folder: Path, **config: Any) -> Path:
    shutil.copytree(model, folder)
    (folder / "config.json").write_text(json.dumps(config_of(folder) | config))
    return folder


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "olmo2"}, "Covered: llama, mistral, qwen2, qwen3"),
        ({"hidden_act": "gelu"}, "llama.cpp computes silu"),
        ({"quantization_config": {"quant_method": "awq"}}, "quantized weights"),
        ({"num_hidden_layers": 3}, "lacks 9 of the"),
        ({"num_hidden_layers": 1}, "has no place"),
        ({"num_hidden_layers": 10**9}, "Expected fewer than the 21 tensors"),
        ({"num_hidden_layers": None}, "num_hidden_layers is None"),
        ({"rms_norm_eps": None}, "rms_norm_eps is None in .*\n  Expected a number above 0"),
        ({"rms_norm_eps": "1e-5"}, "rms_norm_eps is '1e-5'"),
        ({"rms_norm_eps": -1e-5}, "rms_norm_eps is -1e-05"),
        ({"model_type": "mistral", "sliding_window": "4k"}, "sliding_window is '4k'"),
        (
            {"model_type": "qwen2", "use_sliding_window": True, "sliding_window": 32, "layer_types": None},
            "sliding window of 32",
        ),
        ({"head_dim": 4}, "whole heads"),
        ({"model_type": "mistral"}, None),
        ({"model_type": "mistral", "sliding_window": 32}, "sliding window of 32 tokens, below the window of 64"),
        ({"model_type": "mistral", "sliding_window": 64}, None),
    ],
)
def test_what_is_not_covered_is_refused(tiny_llama: Path, tmp_path: Path, change: dict, message: str | None) -> None:
    model = changed(tiny_llama, tmp_path / "model", **change)
    if message is None:
        planned_export(model)
        return
    with pytest.raises(CheckpointError, match=message):
        export(model, out=tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_qwen_that_slides_is_refused(qwen2: Path, tmp_path: Path) -> None:
    slides = {"use_sliding_window": True, "sliding_window": 32}
    model = changed(qwen2, tmp_path / "sliding", **slides, layer_types=["full_attention", "sliding_attention"])
    with pytest.raises(CheckpointError, match="sliding window of 32"):
        planned_export(model)
    planned_export(changed(qwen2, tmp_path / "not", **slides, layer_types=["full_attention"] * 2))


def test_an_untied_model_without_its_output_is_refused(tmp_path: Path, tiny_tokenizer: Path) -> None:
    model = make("qwen2", tmp_path / "model", tiny_tokenizer, tie_word_embeddings=True)
    with pytest.raises(CheckpointError, match=r"output\.weight"):
        export(changed(model, tmp_path / "untied", tie_word_embeddings=False), out=tmp_path / "out")


def test_biases_that_llama_cpp_does_not_load_are_refused(tmp_path: Path, tiny_tokenizer: Path) -> None:
    model = make("qwen3", tmp_path / "model", tiny_tokenizer, attention_bias=True)
    with pytest.raises(CheckpointError, match=r"o_proj\.bias"):
        export(model, out=tmp_path / "out")


def test_dynamic_and_two_sided_longrope_are_refused(tiny_llama: Path, tmp_path: Path) -> None:
    dynamic = with_rope(tiny_llama, tmp_path / "dynamic", window=64, rope_type="dynamic", factor=4.0)
    with pytest.raises(RopeError, match="Freeze it first"):
        export(dynamic, out=tmp_path / "out")
    block = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": DIVISORS} | ORIGINAL
    with pytest.raises(RopeError, match="short and long factors differ"):
        export(with_rope(tiny_llama, tmp_path / "longrope", **block), out=tmp_path / "out")


def test_unknown_format_and_dtype(tiny_llama: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="Known: gguf"):
        export(tiny_llama, to="ggml", out=tmp_path / "out")
    with pytest.raises(CheckpointError, match="unknown dtype 'q4_0'"):
        export(tiny_llama, out=tmp_path / "out", dtype="q4_0")


def test_the_folder_holds_the_file_and_its_record(tiny_llama: Path, tmp_path: Path) -> None:
    export(tiny_llama, out=tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["run.json", "tiny.gguf"]
    run = read_run(tmp_path / "out")
    assert (run.command, run.status, run.resolved["subject"]["name"]) == ("export", "done", "tiny")
    assert "gguf" in run.packages
    with pytest.raises(OutputError, match="there already"):
        export(tiny_llama, out=tmp_path / "out")


def test_nothing_is_left_when_writing_breaks_off(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []

    def full(self: Any, tensor: np.ndarray) -> None:
        written.append(tensor)
        if len(written) > 3:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(gguf.GGUFWriter, "write_tensor_data", full)
    with pytest.raises(OutputError, match="No space left"):
        export(tiny_llama, out=tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_file_that_would_rotate_otherwise_does_not_appear(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ropewalk.exporting import export as module
    from ropewalk.exporting.llama_cpp import Rotation, carried

    def forgetful(rope: Any, family: Any) -> Rotation:
        keys = carried(rope, family).keys
        return Rotation({key: value for key, value in keys.items() if "scaling" not in key})

    extend(tiny_llama, to=256, out=tmp_path / "longer", method="pi")
    monkeypatch.setattr(module, "carried", forgetful)
    with pytest.raises(RopeError, match="would not rotate"):
        export(tmp_path / "longer", out=tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["longer"]


def test_several_files_of_weights(tmp_path: Path, tiny_tokenizer: Path, tiny_llama: Path) -> None:
    from transformers import LlamaForCausalLM

    shutil.copytree(tiny_llama, tmp_path / "tiny")
    (tmp_path / "tiny" / "model.safetensors").unlink()
    LlamaForCausalLM.from_pretrained(tiny_llama).save_pretrained(tmp_path / "tiny", max_shard_size="20KB")
    assert (tmp_path / "tiny" / "model.safetensors.index.json").is_file()
    split, whole = exported(tmp_path / "tiny", tmp_path / "a"), exported(tiny_llama, tmp_path / "b")
    assert list(split.tensors) == list(whole.tensors)
    assert all(np.array_equal(split.tensors[name], whole.tensors[name]) for name in whole.tensors)


def test_without_the_package_it_says_how_to_get_it(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "gguf", None)
    with pytest.raises(OutputError, match=r"ropewalk\[gguf\]"):
        export(tiny_llama, out=tmp_path / "out")


def test_a_name_with_dots_is_kept_whole(tmp_path: Path, tiny_tokenizer: Path) -> None:
    model = make_llama(tmp_path / "tiny-1.5", tiny_tokenizer)
    assert planned_export(model).file == "tiny-1.5.gguf"
