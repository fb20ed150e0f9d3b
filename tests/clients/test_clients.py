"""Real serving runtimes, each in an environment of its own, agree with stock transformers and with `ropewalk check`.

`make test-runtimes` builds the environments, runs this, and its result stands in docs/runtimes.md.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from ropewalk.checking import check
from ropewalk.exporting.export import export
from ropewalk.extension import extend
from tests.families.tiny import tiny_config, tiny_model

pytestmark = pytest.mark.clients

HERE = Path(__file__).parent
ENVIRONMENTS = Path(os.environ.get("ROPEWALK_CLIENTS", HERE.parents[1] / "build" / "clients"))
WINDOW, TARGET, LENGTH = 64, 256, 200
FAMILIES, METHODS = ("llama", "qwen2"), ("pi", "ntk", "yarn", "by-parts")

# float32 everywhere; runtimes order their sums differently. Of the largest logit.
TOLERANCE = {"transformers4": 1e-5, "mlx": 1e-4, "llama_cpp": 2e-3}  # llama.cpp's CPU kernels hold keys in float16


def scored(client: str, model: Path, folder: Path, tokens: np.ndarray) -> np.ndarray:
    """Logits of a real client, (tokens, vocabulary)."""
    python = ENVIRONMENTS / client / "bin" / "python"
    assert python.exists(), f"{python} is missing: run make test-runtimes"
    np.save(folder / "tokens.npy", tokens)
    script = HERE / f"score_{'transformers' if client == 'transformers4' else client}.py"
    command = [str(python), str(script), str(model), str(folder / "tokens.npy"), str(folder / "logits.npy")]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"HF_HUB_OFFLINE": "1"})
    assert done.returncode == 0, done.stderr[-2000:]
    return np.load(folder / "logits.npy")


def stock(model: Path, tokens: np.ndarray) -> np.ndarray:
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    with torch.inference_mode():
        return loaded(torch.from_numpy(tokens)[None], use_cache=False).logits[0].numpy()


def distance(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


@pytest.fixture(scope="module")
def tokens() -> np.ndarray:
    return np.random.default_rng(0).integers(3, 128, LENGTH)


@pytest.fixture(scope="module", params=FAMILIES)
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Path) -> Path:
    """A tiny model whose vocabulary is the tokenizer's."""
    folder = tmp_path_factory.mktemp("clients") / request.param
    config = tiny_config(request.param)
    config.vocab_size = 300
    if request.param == "qwen2":
        config.use_sliding_window = False
        config.layer_types = ["full_attention"] * config.num_hidden_layers
        config.hidden_size = 64  # llama.cpp has no place for Qwen2 heads that do not fill it
    tiny_model(config).save_pretrained(folder)
    for path in tiny_tokenizer.iterdir():
        shutil.copyfile(path, folder / path.name)
    return folder


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("client", ["transformers4", "mlx", "llama_cpp"])
def test_a_client_computes_what_transformers_computes(
    client: str, method: str, base: Path, tokens: np.ndarray, tmp_path: Path
) -> None:
    extend(base, to=TARGET, out=tmp_path / "long", method=method)
    model = tmp_path / "long"
    if client == "llama_cpp":
        run = export(tmp_path / "long", out=tmp_path / "gguf")
        model = tmp_path / "gguf" / run.resolved["file"]
    else:
        name = {"transformers4": "transformers-4", "mlx": "mlx-lm"}[client]
        assert [verdict.outcome for verdict in check(tmp_path / "long", runtimes=[name])] == ["exact"]
    theirs = scored(client, model, tmp_path, tokens)
    assert distance(theirs, stock(tmp_path / "long", tokens)) <= TOLERANCE[client]
    assert distance(theirs, stock(base, tokens)) > 0.01  # and not what the base computes


def test_what_the_oracle_calls_wrong_is_wrong_in_the_real_client(
    base: Path, tokens: np.ndarray, tmp_path: Path
) -> None:
    """A checkpoint as transformers 5 saves it, one schema only: version 4 and mlx-lm read theta 10000 and no scaling."""
    from transformers import AutoConfig

    extend(base, to=TARGET, out=tmp_path / "long")
    AutoConfig.from_pretrained(tmp_path / "long").save_pretrained(tmp_path / "long")
    for client, name in (("transformers4", "transformers-4"), ("mlx", "mlx-lm")):
        assert [verdict.outcome for verdict in check(tmp_path / "long", runtimes=[name])] == ["silently wrong"]
        theirs = scored(client, tmp_path / "long", tmp_path, tokens)
        assert distance(theirs, stock(tmp_path / "long", tokens)) > 0.01


def test_a_checkpoint_that_version_4_misreads_is_repaired(base: Path, tokens: np.ndarray, tmp_path: Path) -> None:
    from transformers import AutoConfig

    extend(base, to=TARGET // 2, out=tmp_path / "saved", method="yarn")
    AutoConfig.from_pretrained(tmp_path / "saved").save_pretrained(tmp_path / "saved")
    assert "rope_scaling" not in json.loads((tmp_path / "saved" / "config.json").read_text())
    wanted = stock(tmp_path / "saved", tokens)
    assert distance(scored("transformers4", tmp_path / "saved", tmp_path, tokens), wanted) > 0.01
    extend(tmp_path / "saved", to=TARGET, out=tmp_path / "longer", method="yarn")
    longer = scored("transformers4", tmp_path / "longer", tmp_path, tokens)
    assert distance(longer, stock(tmp_path / "longer", tokens)) <= TOLERANCE["transformers4"]
    check(tmp_path / "saved", fix=True)
    assert distance(scored("transformers4", tmp_path / "saved", tmp_path, tokens), wanted) <= TOLERANCE["transformers4"]
