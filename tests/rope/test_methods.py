"""Methods: the papers' sentences, what each is written as, what composes, and what is refused."""

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ropewalk.errors import RopeError
from ropewalk.rope.frequencies import base_frequencies, turns
from ropewalk.rope.methods import METHODS, method_named, native
from ropewalk.rope.options import parsed_options, rescaled_by
from ropewalk.rope.scalings import DynamicNtk, Linear, Llama3, LongRope, Unscaled, Yarn
from ropewalk.rope.spec import RopeSpec, Window

BASE = RopeSpec(theta=10_000.0, rotary_dim=32, window=Window(256, 256))
NEEDED = {"abf": {"theta": 500_000.0}, "longrope": {"factors": [1.5] * 16}}
STATIC = [name for name in METHODS if name != "freeze"]

specs = st.builds(
    lambda theta, dim, window: RopeSpec(theta=theta, rotary_dim=dim, window=Window(window, window)),
    st.sampled_from([1e4, 5e5, 1e6]),
    st.sampled_from([16, 64, 80, 128]),
    st.sampled_from([256, 2048, 4096]),
)
stretches = st.sampled_from([2, 4, 8, 32])


def longer(name: str, rope: RopeSpec, target: int) -> RopeSpec:
    return rescaled_by(name, rope, target, NEEDED.get(name))


def test_each_method_says_its_result_in_published_words() -> None:
    told = {name: longer(name, BASE, 1024).scaling for name in STATIC}
    assert told == {
        "none": Unscaled(),
        "pi": Linear(4.0),
        "ntk": Unscaled(),
        "by-parts": Yarn(4.0, attention_factor=1.0, mscale=1.0, mscale_all_dim=1.0),
        "yarn": Yarn(4.0),
        "llama3": Llama3(4.0, 1.0, 4.0),
        "abf": Unscaled(),
        "longrope": LongRope((1.5,) * 16, (1.5,) * 16, 4.0),
    }
    assert all(longer(name, BASE, 1024).window == Window(256, 1024) for name in STATIC)


def test_a_stretch_that_is_no_whole_number_is_kept_as_it_is() -> None:
    assert rescaled_by("pi", BASE, 640).scaling == Linear(2.5)


@given(specs, stretches)
def test_by_parts_is_definition_2_of_the_yarn_paper(rope: RopeSpec, stretch: int) -> None:
    """theta' = (1 - gamma) theta / s + gamma theta, gamma = clip((r - 1) / (32 - 1), 0, 1), r = L / wavelength."""
    base_F = base_frequencies(rope.theta, rope.rotary_dim)
    gamma_F = np.clip((turns(base_F, rope.window.original) - 1) / 31, 0, 1)
    target = stretch * rope.window.original
    ours = rescaled_by("by-parts", rope, target, {"ramp": "turns"}).frequencies()
    np.testing.assert_allclose(ours.inverse_F, (1 - gamma_F) * base_F / stretch + gamma_F * base_F, rtol=1e-12)
    assert ours.attention_factor == 1.0
    tempered = rescaled_by("yarn", rope, target, {"ramp": "turns"}).frequencies()
    np.testing.assert_allclose(tempered.inverse_F, ours.inverse_F, rtol=1e-12)
    assert tempered.attention_factor == pytest.approx(0.1 * math.log(stretch) + 1)


@given(specs, stretches)
def test_by_parts_is_yarn_without_its_temperature(rope: RopeSpec, stretch: int) -> None:
    target = stretch * rope.window.original
    parts, yarn = (rescaled_by(name, rope, target).frequencies() for name in ("by-parts", "yarn"))
    np.testing.assert_array_equal(parts.inverse_F, yarn.inverse_F)
    assert (parts.attention_factor, yarn.attention_factor > 1) == (1.0, True)


def test_the_ramp_over_turns_gives_the_papers_vector_for_llama() -> None:
    llama = RopeSpec(theta=1e4, rotary_dim=128, window=Window(2048, 2048))
    frequencies = rescaled_by("yarn", llama, 8192, {"ramp": "turns"}).frequencies().inverse_F
    expected = [1, 0.316228, 0.1, 0.0150265, 0.00304665, 7.92921e-4, 2.5e-4, 2.88695e-5]
    np.testing.assert_allclose(frequencies[[0, 8, 16, 24, 32, 40, 48, 63]], expected, rtol=5e-6)


@given(specs, stretches)
def test_no_method_turns_any_pair_faster_or_slower_than_interpolation(rope: RopeSpec, stretch: int) -> None:
    base_F = rope.frequencies().inverse_F
    for name in ("pi", "ntk", "by-parts", "yarn", "llama3"):
        ratio_F = rescaled_by(name, rope, stretch * rope.window.original).frequencies().inverse_F / base_F
        assert ratio_F.max() <= 1 + 1e-12 and ratio_F.min() >= 1 / stretch - 1e-12, name
        assert (np.diff(ratio_F) <= 1e-12).all(), name  # slower pairs are never slowed less


def test_yarns_temperature_is_said_to_every_runtime_the_same() -> None:
    """Some runtimes read attention_factor, others the ratio of two mscales; both are written and agree."""
    scaling = rescaled_by("yarn", BASE, 1024, {"attention_factor": 1.3}).scaling
    assert isinstance(scaling, Yarn) and scaling.attention_factor == 1.3
    ratio = (0.1 * scaling.mscale * math.log(4) + 1) / (0.1 * scaling.mscale_all_dim * math.log(4) + 1)
    assert ratio == pytest.approx(1.3)


@pytest.mark.parametrize("name", ["pi", "ntk", "by-parts", "yarn", "llama3"])
@given(specs, st.sampled_from([(2, 2), (4, 2), (2, 8)]))
def test_twice_is_once_at_the_whole_stretch(name: str, rope: RopeSpec, steps: tuple[int, int]) -> None:
    """A window lengthened by a method and lengthened again by it: native times the total factor."""
    first, second = (rope.window.original * steps[0], rope.window.original * steps[0] * steps[1])
    halfway = longer(name, rope, first)
    if name == "ntk":  # config.json then shows an unscaled model with a window of `first`
        halfway = RopeSpec(theta=halfway.theta, rotary_dim=rope.rotary_dim, window=Window(first, first))
    twice, once = longer(name, halfway, second).frequencies(), longer(name, rope, second).frequencies()
    np.testing.assert_allclose(twice.inverse_F, once.inverse_F, rtol=1e-12)
    assert twice.attention_factor == pytest.approx(once.attention_factor)


def test_a_declared_factor_that_is_not_the_ratio_of_the_windows_is_multiplied_as_declared() -> None:
    """Llama 3.1 declares 8 over windows of 8,192 and 131,072; twice its window is factor 16."""
    llama = RopeSpec(theta=5e5, rotary_dim=128, window=Window(8192, 131072), scaling=Llama3(8.0))
    assert rescaled_by("llama3", llama, 262144).scaling == Llama3(16.0)


@pytest.mark.parametrize(
    ("before", "name"),
    [
        ("pi", "yarn"), ("yarn", "pi"), ("pi", "ntk"), ("llama3", "pi"), ("yarn", "by-parts"), ("longrope", "pi"),
        ("longrope", "none"), ("pi", "abf"), ("yarn", "longrope"),
    ],
)  # fmt: skip
def test_one_scaling_over_another_is_refused_with_the_way_out(before: str, name: str) -> None:
    with pytest.raises(RopeError, match=r"already scaled with .* from 256 to 1024(.|\n)*--from original"):
        longer(name, longer(before, BASE, 1024), 2048)


@pytest.mark.parametrize("before", ["pi", "yarn", "llama3"])
def test_direct_tuning_leaves_a_scaling_as_it_is(before: str) -> None:
    scaled = longer(before, BASE, 1024)
    assert longer("none", scaled, 2048).scaling == scaled.scaling


def test_native_is_the_rotation_before_any_scaling() -> None:
    assert all(native(longer(name, BASE, 1024)) == BASE for name in ("none", "pi", "by-parts", "yarn", "llama3"))


def test_freezing_gives_the_theta_that_dynamic_scaling_has_at_the_target() -> None:
    dynamic = RopeSpec(theta=1e4, rotary_dim=128, window=Window(2048, 2048), scaling=DynamicNtk(2.0))
    frozen = longer("freeze", dynamic, 8192)
    assert frozen.scaling == Unscaled() and frozen.theta == pytest.approx(72195.9, abs=0.05)
    with pytest.raises(RopeError, match="this checkpoint's is default"):
        longer("freeze", BASE, 1024)
    with pytest.raises(RopeError, match="--method freeze makes it static"):
        longer("pi", dynamic, 8192)


@pytest.mark.parametrize("name", STATIC)
@pytest.mark.parametrize("target", [255, 256, 1, 1024.0, True])
def test_a_target_not_above_the_window_is_refused_with_both_numbers(name: str, target: int) -> None:
    with pytest.raises(RopeError, match=rf"{target} tokens is not above the window of 256"):
        longer(name, BASE, target)


def test_an_unknown_method_names_the_closest_and_lists_all() -> None:
    with pytest.raises(RopeError, match=r"unknown method 'yarm'. Did you mean 'yarn'\?\n  Known: none, pi, ntk"):
        method_named("yarm")


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("yarn", {"beta_fats": 1}, "unknown option of yarn 'beta_fats'. Did you mean 'beta_fast'"),
        ("pi", {"beta_fast": 1}, "method pi has no options"),
        ("abf", {}, "method abf needs theta"),
        ("abf", {"theta": 5000.0}, "not above this model's 10000"),
        ("longrope", {"factors": [1.0]}, "factors holds 1 values for 16 rotary pairs"),
        ("longrope", {"factors": [0.0] * 16}, "factors is 0.0"),
        ("longrope", {"factors": [True] * 16}, "factors holds True"),
        ("llama3", {"low_freq_factor": 4.0}, "low_freq_factor 4 is not between"),
        ("by-parts", {"beta_slow": 33.0}, "beta_slow 33 is not between"),
        ("by-parts", {"ramp": "turn"}, "unknown ramp 'turn'. Did you mean 'turns'"),
        ("yarn", {"mscale": 1.0}, "only together"),
        ("yarn", {"mscale": 1.0, "attention_factor": 1.0}, "without effect"),
        ("yarn", {"ramp": "turns", "truncate": False}, "truncate has no effect"),
    ],
)
def test_options_that_make_no_sense_are_refused(name: str, options: dict, says: str) -> None:
    with pytest.raises(RopeError) as error:
        rescaled_by(name, BASE, 1024, options)
    assert says in str(error.value)


def test_options_are_read_as_the_method_takes_them(tmp_path: Path) -> None:
    (tmp_path / "factors.json").write_text(json.dumps([1, 2.5]))
    assert parsed_options("longrope", ["factors=1,2.5"]) == {"factors": [1.0, 2.5]}
    assert parsed_options("longrope", [f"factors=@{tmp_path / 'factors.json'}"]) == {"factors": [1.0, 2.5]}
    assert parsed_options("abf", ["theta=5e5"]) == {"theta": 500_000.0}
    for wrong in ("beta_fast=fast", "truncate=maybe", "beta_fast"):
        with pytest.raises(RopeError, match="--option"):
            parsed_options("yarn", [wrong])


def test_ntk_needs_two_pairs() -> None:
    with pytest.raises(RopeError, match="two rotary pairs"):
        rescaled_by("ntk", RopeSpec(theta=1e4, rotary_dim=2, window=Window(8, 8)), 16)


@pytest.mark.parametrize("window", [0, -1, 2.0, True, "8"])
def test_a_window_is_a_whole_number_of_tokens(window: object) -> None:
    with pytest.raises(RopeError, match="whole number of tokens"):
        Window(window, 8)  # type: ignore[arg-type]


@pytest.mark.parametrize("theta", [1.0, 0.0, -5.0, float("nan"), float("inf")])
def test_theta_is_finite_and_above_one(theta: float) -> None:
    with pytest.raises(RopeError, match="rope_theta"):
        RopeSpec(theta=theta, rotary_dim=8, window=Window(8, 8))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0, -1.0, 1e-320, 1e300])
@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("yarn", "attention_factor"), ("yarn", "beta_fast"), ("by-parts", "beta_slow"), ("llama3", "high_freq_factor"),
        ("abf", "theta"), ("longrope", "attention_factor"),
    ],
)  # fmt: skip
def test_numbers_that_no_rotation_can_have_are_refused(name: str, option: str, value: float) -> None:
    with pytest.raises(RopeError, match=rf"{option} is .*\n  Expected a number from 1e-6 to 1e15"):
        rescaled_by(name, BASE, 1024, NEEDED.get(name, {}) | {option: value})


def test_a_window_beyond_what_runtimes_count_is_refused() -> None:
    for target in (2**31, 10**30, 10**400):
        with pytest.raises(RopeError, match=r"from 1 to 2\^31 - 1"):
            rescaled_by("pi", BASE, target)


def test_a_pipe_of_factors_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(RopeError, match="not a plain file"):
        parsed_options("longrope", [f"factors=@{tmp_path / 'pipe'}"])
