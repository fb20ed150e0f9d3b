"""Scalings: the papers' sentences as properties, the vectors of the literature, and equality with transformers."""

import itertools
import logging
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ropewalk.rope.frequencies import base_frequencies, turns, wavelengths
from ropewalk.rope.methods import interpolate, raise_theta, yarn
from ropewalk.rope.scalings import DynamicNtk, Linear, Llama3, LongRope, Unscaled, Yarn, yarn_attention_factor
from ropewalk.rope.spec import RopeSpec, Window

DIMS = st.sampled_from([16, 32, 64, 80, 128, 256])
THETAS = st.sampled_from([1e4, 5e5, 1e6])
WINDOWS = st.sampled_from([256, 2048, 4096, 32768])
FACTORS = st.sampled_from([1.5, 2.0, 4.0, 8.0, 32.0])

LLAMA = RopeSpec(theta=10_000.0, rotary_dim=128, window=Window(2048, 2048))

# Pair index -> radians per token, for d = 128, theta = 10^4, window 2048, factor 4; computed from the papers' formulas.
PAIRS = [0, 8, 16, 24, 32, 40, 48, 63]
VECTORS = {
    "RoPE": [1, 0.316228, 0.1, 0.0316228, 0.01, 0.00316228, 0.001, 1.15478e-4],
    "PI": [0.25, 0.0790569, 0.025, 0.00790569, 0.0025, 7.90569e-4, 2.5e-4, 2.88695e-5],
    "NTK": [1, 0.265184, 0.0703228, 0.0186485, 0.00494529, 0.00131141, 3.47766e-4, 2.88695e-5],
    "YaRN": [1, 0.316228, 0.1, 0.0240333, 0.0052, 8.85438e-4, 2.5e-4, 2.88695e-5],
    "YaRN, not rounded": [1, 0.316228, 0.1, 0.0238702, 0.00505697, 8.1129e-4, 2.5e-4, 2.88695e-5],
}


@pytest.mark.parametrize(
    ("name", "rope"),
    [
        ("RoPE", LLAMA),
        ("PI", interpolate(LLAMA, 8192)),
        ("NTK", raise_theta(LLAMA, 8192)),
        ("YaRN", yarn(LLAMA, 8192)),
        (
            "YaRN, not rounded",
            RopeSpec(theta=1e4, rotary_dim=128, window=Window(2048, 8192), scaling=Yarn(4.0, truncate=False)),
        ),
    ],
)
def test_frequencies_are_those_of_the_papers(name: str, rope: RopeSpec) -> None:
    np.testing.assert_allclose(rope.frequencies().inverse_F[PAIRS], VECTORS[name], rtol=5e-6)


@pytest.mark.parametrize(
    ("factor", "expected"), [(2, 1.0693), (4, 1.1386), (8, 1.2079), (16, 1.2773), (32, 1.3466), (1, 1.0)]
)
def test_yarn_attention_factor_is_a_tenth_of_the_logarithm_plus_one(factor: float, expected: float) -> None:
    assert yarn_attention_factor(factor) == pytest.approx(expected, abs=5e-5)


def test_ntk_theta_is_that_of_the_literature() -> None:
    assert raise_theta(LLAMA, 8192).theta == pytest.approx(40889.9, abs=0.05)
    grown = DynamicNtk(2.0).frequencies(1e4, 128, 2048, 8192).inverse_F
    np.testing.assert_allclose(grown, base_frequencies(72195.9, 128), rtol=1e-5)


def test_longrope_attention_factor() -> None:
    ones = (1.0,) * 64
    factor = LongRope(ones, ones).frequencies(1e4, 128, 2048, 8192).attention_factor
    assert factor == pytest.approx(1.0871, abs=5e-5)


def test_llama3_keeps_blends_and_scales_as_many_pairs_as_published() -> None:
    """Llama 3.1: of 64 pairs 29 are kept, 6 blended, 29 divided by the factor."""
    base_F = base_frequencies(5e5, 128)
    scaled_F = Llama3(8.0).frequencies(5e5, 128, 8192, 131072).inverse_F
    kept, divided = np.isclose(scaled_F, base_F).sum(), np.isclose(scaled_F, base_F / 8).sum()
    assert (kept, 64 - kept - divided, divided) == (29, 6, 29)


@given(DIMS, THETAS, WINDOWS, FACTORS)
def test_interpolation_at_n_is_the_original_at_n_over_the_stretch(
    dim: int, theta: float, window: int, factor: float
) -> None:
    """arXiv 2306.15595, eq. 4: f'(x, m) = f(x, m L / L')."""
    rope = RopeSpec(theta=theta, rotary_dim=dim, window=Window(window, window))
    longer = interpolate(rope, int(window * factor))
    positions = np.arange(0, longer.window.target, 97)[:, None]
    np.testing.assert_allclose(
        positions * longer.frequencies().inverse_F,
        positions / longer.window.stretch * rope.frequencies().inverse_F,
        rtol=1e-12,
    )


@given(DIMS, THETAS, WINDOWS, FACTORS)
def test_ntk_keeps_the_fastest_pair_and_slows_the_slowest_by_the_stretch(
    dim: int, theta: float, window: int, factor: float
) -> None:
    rope = RopeSpec(theta=theta, rotary_dim=dim, window=Window(window, window))
    ratio_F = raise_theta(rope, int(window * factor)).frequencies().inverse_F / rope.frequencies().inverse_F
    assert ratio_F[0] == pytest.approx(1)
    assert ratio_F[-1] == pytest.approx(window / int(window * factor))
    assert (np.diff(ratio_F) < 0).all()


@given(DIMS, THETAS, WINDOWS, FACTORS)
def test_yarn_keeps_fast_pairs_and_interpolates_slow_ones(dim: int, theta: float, window: int, factor: float) -> None:
    """YaRN 3.2: pairs that turn more than beta_fast times are kept, those that turn less than once are divided."""
    base_F = base_frequencies(theta, dim)
    scaled_F = Yarn(factor).frequencies(theta, dim, window, int(window * factor)).inverse_F
    turned_F = turns(base_F, window)
    np.testing.assert_allclose(scaled_F[turned_F > 32], base_F[turned_F > 32], rtol=1e-12)
    # rounding outwards may let the ramp reach one pair further than the exact bound
    slow = np.flatnonzero(turned_F < 1)[1:]
    np.testing.assert_allclose(scaled_F[slow], base_F[slow] / factor, rtol=1e-12)


@given(DIMS, THETAS, WINDOWS, FACTORS)
def test_llama3_keeps_fast_pairs_and_divides_slow_ones(dim: int, theta: float, window: int, factor: float) -> None:
    base_F = base_frequencies(theta, dim)
    scaled_F = Llama3(factor).frequencies(theta, dim, window, int(window * factor)).inverse_F
    turned_F = turns(base_F, window)
    np.testing.assert_allclose(scaled_F[turned_F > 4], base_F[turned_F > 4], rtol=1e-12)
    np.testing.assert_allclose(scaled_F[turned_F < 1], base_F[turned_F < 1] / factor, rtol=1e-12)


@given(DIMS, THETAS, st.integers(0, 10_000), st.integers(0, 10_000), st.integers(-5_000, 5_000))
def test_the_score_depends_on_the_distance_only(dim: int, theta: float, m: int, n: int, shift: int) -> None:
    """RoFormer eq. 16: <f(q, m), f(k, n)> is a function of m - n."""
    rng = np.random.default_rng(0)
    query_F, key_F = rng.normal(size=(2, dim // 2)) + 1j * rng.normal(size=(2, dim // 2))
    turn_F = Linear(4.0).frequencies(theta, dim, 2048, 8192).inverse_F

    def score(i: int, j: int) -> float:
        return float((query_F * np.exp(1j * i * turn_F) * np.conj(key_F * np.exp(1j * j * turn_F))).sum().real)

    assert score(m, n) == pytest.approx(score(m + shift, n + shift), abs=1e-8 * dim)


def test_wavelengths_and_turns_agree() -> None:
    base_F = base_frequencies(1e4, 128)
    np.testing.assert_allclose(turns(base_F, 2048), 2048 / wavelengths(base_F))
    assert (turns(base_F, 2048) >= 1).sum() == 41  # of LLaMA's 64 pairs, 41 complete a turn in its window
    assert wavelengths(base_F)[-1] == pytest.approx(54_410, rel=1e-4)


def theirs(kind: str, dim: int, theta: float, original: int, target: int, keys: dict) -> tuple[np.ndarray, float]:
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    config = LlamaConfig(
        hidden_size=dim * 4,
        num_attention_heads=4,
        head_dim=dim,
        max_position_embeddings=original if kind == "dynamic" else target,
        rope_parameters={"rope_type": kind, "rope_theta": theta, **keys},
    )
    if kind == "longrope":
        config.original_max_position_embeddings = original
    more = {"seq_len": target} if kind in ("dynamic", "longrope") else {}
    inverse_F, factor = ROPE_INIT_FUNCTIONS[kind](config, "cpu", **more)
    return inverse_F.double().numpy(), factor


def scaling_cases(factor: float, original: int, dim: int):
    rng = np.random.default_rng(dim)
    short, long = (tuple(1 + scale * rng.random(dim // 2)) for scale in (1, 8))
    states = {"original_max_position_embeddings": original}
    yield Linear(factor), {"factor": factor}
    yield DynamicNtk(factor), {"factor": factor}
    yield Llama3(factor), {"factor": factor, "low_freq_factor": 1.0, "high_freq_factor": 4.0, **states}
    yield Yarn(factor), {"factor": factor, **states}
    yield Yarn(factor, truncate=False), {"factor": factor, "truncate": False, **states}
    yield (
        Yarn(factor, beta_fast=24.0, beta_slow=2.0, attention_factor=1.25),
        {"factor": factor, "beta_fast": 24.0, "beta_slow": 2.0, "attention_factor": 1.25, **states},
    )
    yield (
        Yarn(factor, mscale=0.7, mscale_all_dim=1.2),
        {"factor": factor, "mscale": 0.7, "mscale_all_dim": 1.2, **states},
    )
    yield (
        LongRope(short, long, factor),
        {"short_factor": list(short), "long_factor": list(long), "factor": factor, **states},
    )


def test_every_scaling_equals_transformers_on_thousands_of_settings() -> None:
    """5e-6: transformers computes in float32, whose powers are good to about 3e-6 of their value."""
    logging.disable(logging.WARNING)  # transformers warns of odd but legal settings
    compared = 0
    try:
        for dim, theta, original, factor in itertools.product(
            (32, 64, 80, 96, 128, 256), (1e4, 5e5, 1e6), (2048, 4096, 8192, 32768), (1.0, 2.0, 4.0, 8.0, 32.0)
        ):
            target = int(original * factor)
            for scaling, keys in scaling_cases(factor, original, dim):
                inverse_F, attention = theirs(scaling.rope_type, dim, theta, original, target, keys)
                ours = scaling.frequencies(theta, dim, original, target)
                np.testing.assert_allclose(ours.inverse_F, inverse_F, rtol=5e-6, err_msg=f"{scaling}")
                assert math.isclose(ours.attention_factor, attention, rel_tol=1e-6), scaling
                compared += 1
    finally:
        logging.disable(logging.NOTSET)
    assert compared >= 2000


def test_unscaled_equals_transformers_with_partial_rotation() -> None:
    inverse_F, _ = theirs("linear", 96, 1e4, 2048, 2048, {"factor": 1.0})
    np.testing.assert_allclose(Unscaled().frequencies(1e4, 96, 2048, 2048).inverse_F, inverse_F, rtol=5e-6)
