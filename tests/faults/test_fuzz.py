"""Everything that reads what others wrote keeps its promises on mutated inputs; a few here, as many as asked for in full."""

from collections import Counter

import pytest

from tests.faults.fuzz import TARGETS, fed, fuzzed, mutated, seeds_of

FEW = 3_000

# Inputs that once broke a reader, and what each showed
ONCE = [
    # dynamic NTK divides by the rotary dimension less two
    ("config", b'{"model_type": "llama", "hidden_size": 6, "num_attention_heads": 3, "head_dim": 2, "rope_theta": 10000.0, '
     b'"max_position_embeddings": 64, "rope_scaling": {"type": "dynamic", "factor": 4.0}}'),
    # longrope's factor for attention divides by the logarithm of the original window
    ("config", b'{"model_type": "phi3", "head_dim": 4, "rope_theta": 10000.0, "max_position_embeddings": 64, '
     b'"original_max_position_embeddings": 1, "rope_scaling": {"type": "longrope", "short_factor": [1.0, 1.0], '
     b'"long_factor": [2.0, 2.0]}}'),
    # one divisor was laid over four pairs, without a word
    ("config", b'{"model_type": "phi3", "head_dim": 8, "rope_theta": 10000.0, "max_position_embeddings": 64, '
     b'"rope_scaling": {"type": "longrope", "short_factor": [1.0], "long_factor": [2.0], "factor": 2.0}}'),
]  # fmt: skip


# Configs whose rotation was another one once it was written down again
LOST = [
    # dynamic NTK with its original window in the block: `tune` and `check --fix` left it out
    b'{"model_type": "llama", "head_dim": 8, "rope_theta": 10000.0, "max_position_embeddings": 64, '
    b'"rope_scaling": {"type": "dynamic", "factor": 4.0, "original_max_position_embeddings": 32}}',
    # and a window that was declared longer over no scaling
    b'{"model_type": "llama", "head_dim": 8, "rope_theta": 10000.0, "max_position_embeddings": 64, '
    b'"rope_scaling": {"type": "default", "original_max_position_embeddings": 32}}',
]


@pytest.mark.parametrize("raw", LOST)
def test_what_once_lost_its_rotation_keeps_it(raw: bytes) -> None:
    assert fed("config", raw) is None
    TARGETS["config"].feed(raw)


@pytest.mark.parametrize("name", TARGETS)
def test_a_few_inputs(name: str) -> None:
    assert fuzzed(name, max(10, round(FEW * TARGETS[name].share)), seed=1) == []


@pytest.mark.parametrize("name", TARGETS)
def test_the_corpus_is_taken(name: str) -> None:
    """Mutations of what is refused anyway would reach nothing."""
    for raw in seeds_of(name):
        try:
            TARGETS[name].feed(raw)
        except Exception as error:
            assert name == "arguments", error  # some of these are values, and no options of a method


@pytest.mark.parametrize(("name", "raw"), ONCE)
def test_what_once_broke_a_reader_is_refused(name: str, raw: bytes) -> None:
    assert fed(name, raw) is None
    with pytest.raises(TARGETS[name].raises):
        TARGETS[name].feed(raw)


def test_mutations_are_many_and_the_same_again() -> None:
    import random

    def some(seed: int) -> list[bytes]:
        rng = random.Random(seed)
        return [mutated(seeds_of("config")[0], rng) for _ in range(500)]

    assert some(0) == some(0) != some(1) and len(set(some(0))) > 400


def test_a_broken_promise_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the rest would pass whatever happened."""

    def broken(raw: bytes) -> None:
        if b"64" in raw:
            raise KeyError("max_position_embeddings")
        raise ValueError("refused")

    monkeypatch.setitem(TARGETS, "config", type(TARGETS["config"])(broken, (ValueError,), 1.0))
    (found,) = fuzzed("config", 200, seed=0)
    assert "KeyError" in found[1] and b"64" in found[0]


@pytest.mark.faults
@pytest.mark.parametrize("name", TARGETS)
def test_as_many_as_asked_for(name: str, tried: Counter[str], pytestconfig: pytest.Config) -> None:
    number = round(pytestconfig.getoption("fuzz") * TARGETS[name].share)
    found = fuzzed(name, number, seed=0)
    assert not found, "\n".join(f"{raw[:300]!r}\n{how}" for raw, how in found)
    tried["inputs fuzzed"] += number
