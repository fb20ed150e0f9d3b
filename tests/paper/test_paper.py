"""The paper's figures as scripts: what they read from a model is what the model computes, and each leaves its drawings."""

import re
import sys
import xml.etree.ElementTree
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

PAPER = Path(__file__).parents[2] / "paper"


def run(module: ModuleType, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", [f"{module.__name__}.py", *map(str, arguments)])
    module.main()


def test_a_head_read_from_a_model_gives_the_model_s_own_attention(script, tiny_llama: Path) -> None:
    """Softmax over a(m - n) is the attention that transformers computes: a wrong pairing, sign or scale would show."""
    import torch
    from transformers import AutoModelForCausalLM

    from ropewalk.model.view import layer_view
    from ropewalk.rope.bounds import scores
    from ropewalk.rope.frequencies import base_frequencies

    heads = script("heads")
    model = AutoModelForCausalLM.from_pretrained(tiny_llama, attn_implementation="eager").eval()
    tokens_BL = torch.arange(2, 42)[None]
    with torch.inference_mode():
        output = model(tokens_BL, output_hidden_states=True, output_attentions=True)
        view = layer_view(model)
        keys = np.arange(30)
        for depth, layer in enumerate(view.body.layers):
            h_HNF = heads.heads_of(view, layer, output.hidden_states[depth], np.full(30, 29), keys)
            logits = np.stack(
                [np.diagonal(scores(h_NF, base_frequencies(1e4, 8), 29.0 - keys)) for h_NF in h_HNF]
            )  # each pair at its own distance
            weights = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
            theirs = output.attentions[depth][0, :, 29, :30].double().numpy()
            assert np.abs(weights - theirs).max() < 1e-5  # theirs are float32


def test_no_pair_of_a_model_exceeds_the_bounds_that_hold(script, tiny_llama: Path, texts: Path) -> None:
    looseness, heads = script("looseness"), script("heads")
    read = heads.read_heads(tiny_llama, [str(texts)], 16, 0)
    assert len(read.h) == 6 and read.h[0, 0].shape == (48, 4) and (read.distances > 0).all()
    for one in looseness.measured(read).values():
        assert (one["actual"] <= one["sharp"] * (1 + 1e-9)).all() and (one["sharp"] <= one["curvature"]).all()
        assert (one["curvature"] <= one["corrected"] * (1 + 1e-9)).all() and (one["printed"] < one["corrected"]).all()


def test_a_model_that_is_scaled_has_no_trained_window_to_speak_of(script, tiny_llama: Path, tmp_path: Path) -> None:
    import ropewalk

    ropewalk.extend(tiny_llama, to=128, out=tmp_path / "longer")
    with pytest.raises(ropewalk.RopewalkError, match="scaled already"):
        script("heads").read_heads(tmp_path / "longer", ["pilot"], 4, 0)


@pytest.mark.parametrize(
    ("name", "arguments", "files"),
    [
        (
            "figure2",
            ("--seeds", 2),
            (
                "figure2-within.svg",
                "figure2-beyond.svg",
                "figure2-between.svg",
                "figure2.md",
                "figure2.html",
                "figure2.json",
            ),
        ),
        ("figure5", (), ("figure5.svg", "figure5-farther.svg", "figure5.html", "figure5.json")),
        ("window_plots", (), ("counterexample.svg", "constants.svg", "spread.svg")),
        ("looseness", ("--pairs", 8), ("looseness.svg", "looseness.md", "looseness.html", "looseness.json")),
        (
            "figure_heads",
            ("--pairs", 8),
            ("heads-most.svg", "heads-least.svg", "heads-middle.svg", "heads.md", "heads.html", "heads.json"),
        ),
    ],
)
def test_each_script_leaves_its_drawings(
    script, name: str, arguments: tuple, files: tuple[str, ...], tiny_llama: Path, texts: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture,
) -> None:  # fmt: skip
    of_model = ("--model", tiny_llama, "--data", texts) if "--pairs" in arguments else ()
    run(script(name), monkeypatch, "--out", tmp_path, *arguments, *of_model)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(files)
    for path in tmp_path.glob("*.svg"):
        drawing = xml.etree.ElementTree.parse(path).getroot()
        assert drawing.tag == "{http://www.w3.org/2000/svg}svg" and drawing.get("aria-label")
        assert "prefers-color-scheme: dark" in path.read_text() and "{{" not in path.read_text()


def test_the_drawings_of_the_theory_are_those_that_the_script_makes(
    script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They depend on no model, so docs/window holds what anybody gets."""
    run(script("window_plots"), monkeypatch, "--out", tmp_path)
    for path in tmp_path.iterdir():
        here, there = (place.read_text() for place in (path, PAPER.parent / "docs" / "window" / path.name))
        assert re.sub(r' d="[^"]*"', "", here) == re.sub(r' d="[^"]*"', "", there), path.name  # coordinates may round
