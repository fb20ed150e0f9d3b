"""Each runtime's arithmetic against numbers that its own code made.

vectors/rotations.json holds them: for each runtime and config the call that was made, in which version, and the
frequencies and attention factor that came out. llama.cpp's are a transliteration of its C; TensorRT-LLM and MLC have none.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ropewalk.runtimes import RUNTIMES, Served

CONTENT: dict[str, Any] = json.loads((Path(__file__).parent / "vectors" / "rotations.json").read_text())


@pytest.mark.parametrize("vector", CONTENT["vectors"], ids=lambda v: f"{v['runtime']} {v['case']}")
def test_it_computes_what_the_runtime_computed(vector: dict[str, Any]) -> None:
    served = RUNTIMES[vector["runtime"]].reads(CONTENT["configs"][vector["case"]], CONTENT["window"])
    assert isinstance(served, Served)
    # theirs is float32: a power, a product and a division, each rounded to 6e-8
    np.testing.assert_allclose(served.frequencies.inverse_F, vector["inverse_frequencies"], rtol=2e-6)
    np.testing.assert_allclose(served.frequencies.attention_factor, vector["attention_factor"], rtol=1e-6)


@pytest.mark.parametrize(
    "runtime", ["transformers-5", "transformers-4", "vllm", "sglang", "tgi", "mlx-lm", "exllamav2"]
)
def test_every_scaling_has_a_vector(runtime: str) -> None:
    assert {v["case"] for v in CONTENT["vectors"] if v["runtime"] == runtime} == set(CONTENT["configs"])


def test_versions_of_the_vectors_are_those_that_the_readings_name() -> None:
    for vector in CONTENT["vectors"]:
        assert vector["version"].startswith(RUNTIMES[vector["runtime"]].version)
