"""Methods: what they refuse, and that they compose into nothing wrong."""

import pytest

from ropewalk.errors import RopeError
from ropewalk.rope.methods import METHODS, direct, interpolate, method_named, raise_theta, yarn
from ropewalk.rope.scalings import Linear, Unscaled, Yarn
from ropewalk.rope.spec import RopeSpec, Window

BASE = RopeSpec(theta=10_000.0, rotary_dim=32, window=Window(256, 256))


def test_each_method_says_its_result_in_published_words() -> None:
    assert interpolate(BASE, 1024).scaling == Linear(4.0)
    assert yarn(BASE, 2048).scaling == Yarn(8.0)
    assert direct(BASE, 1024).scaling == Unscaled()
    assert raise_theta(BASE, 1024).scaling == Unscaled()
    assert all(method(BASE, 1024).window == Window(256, 1024) for method in METHODS.values())


def test_a_stretch_that_is_no_whole_number_is_kept_as_it_is() -> None:
    assert interpolate(BASE, 640).scaling == Linear(2.5)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("target", [255, 256, 1])
def test_a_target_not_above_the_window_is_refused_with_both_numbers(name: str, target: int) -> None:
    with pytest.raises(RopeError, match=rf"{target} tokens is not above the window of 256"):
        METHODS[name](BASE, target)


@pytest.mark.parametrize("name", METHODS)
def test_a_scaling_already_there_is_refused_by_name(name: str) -> None:
    with pytest.raises(RopeError, match=r"already scaled with linear \(factor 4\), from 256 to 1024"):
        METHODS[name](interpolate(BASE, 1024), 2048)


def test_an_unknown_method_names_the_closest_and_lists_all() -> None:
    with pytest.raises(RopeError, match=r"unknown method 'yarm'. Did you mean 'yarn'\?\n  Known: none, pi, ntk, yarn"):
        method_named("yarm")


def test_ntk_needs_two_pairs() -> None:
    with pytest.raises(RopeError, match="two rotary pairs"):
        raise_theta(RopeSpec(theta=1e4, rotary_dim=2, window=Window(8, 8)), 16)


@pytest.mark.parametrize("window", [0, -1, 2.0, True, "8"])
def test_a_window_is_a_whole_number_of_tokens(window: object) -> None:
    with pytest.raises(RopeError, match="whole number of tokens"):
        Window(window, 8)  # type: ignore[arg-type]


@pytest.mark.parametrize("theta", [1.0, 0.0, -5.0, float("nan"), float("inf")])
def test_theta_is_finite_and_above_one(theta: float) -> None:
    with pytest.raises(RopeError, match="rope_theta"):
        RopeSpec(theta=theta, rotary_dim=8, window=Window(8, 8))
