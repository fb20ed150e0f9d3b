"""Recipes: what each makes of a window, and what it refuses to be."""

import pytest

from ropewalk.errors import DataError
from ropewalk.rope.spec import Window
from ropewalk.train.recipe import RECIPES, Recipe, resolved_recipe

LLAMA = 7 * 10**9
WINDOW = Window(2048, 16_384)


def resolved(name: str, **options) -> Recipe:
    return resolved_recipe(name, **({"parameters": LLAMA, "window": WINDOW} | options))


@pytest.mark.parametrize(
    ("name", "steps", "length", "reach", "warmup"),
    [
        ("paper", 1000, 16_384, 16_384, 20),
        ("direct", 10_000, 16_384, 16_384, 20),  # the paper's baseline took ten times the steps
        ("pose", 1000, 2048, 16_384, 10),
        ("mixed", 1000, 16_384, 16_384, 20),
    ],
)
def test_what_each_recipe_makes_of_a_window(name: str, steps: int, length: int, reach: int, warmup: int) -> None:
    recipe = resolved(name)
    assert (recipe.steps, recipe.length, recipe.reach, recipe.warmup_steps) == (steps, length, reach, warmup)
    assert (recipe.sequences, recipe.learning_rate, recipe.packing) == (64, 2e-5, "concatenated")


def test_what_is_given_goes_before_what_a_recipe_has() -> None:
    for name in RECIPES:
        recipe = resolved(name, steps=7, length=4096, batch_tokens=8192, learning_rate=1e-4)
        assert (recipe.steps, recipe.length, recipe.sequences, recipe.learning_rate) == (7, 4096, 2, 1e-4)


def test_summaries_take_ten_epochs_of_the_paper_s_window() -> None:
    """17,457 reports, as the paper had, in batches of 64."""
    assert resolved("summaries", pairs=17_457).steps == 2728
    assert resolved("summaries", window=Window(2048, 32_768)).length == 16_384
    assert resolved("summaries", window=Window(2048, 8192)).length == 8192


def test_a_recipe_needs_no_window_where_the_length_is_given() -> None:
    assert resolved_recipe("paper", parameters=LLAMA, length=512).window == Window(512, 512)


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        (
            "pose",
            {"window": Window(2048, 2048)},
            "has no positions to skip: its rows of 2048 tokens fill the window of 2048",
        ),
        ("pose", {"length": 16_384}, "has no positions to skip"),
        ("mixed", {"length": 5000}, r"rows of 5000 tokens are not made of(.|\n)*such as 4096"),
        ("mixed", {"window": Window(2048, 5000)}, r"rows of 5000(.|\n)*such as 4096"),
        ("mixed", {"length": 2048}, r"rows of 2048 tokens are not made of several(.|\n)*such as 4096"),
        ("mixed", {"window": Window(2048, 2048)}, "are not made of several windows of 2048"),
        ("summaries", {"packing": "documents"}, "--packing documents has no effect with --recipe summaries"),
        ("paper", {"packing": "document"}, "Did you mean 'documents'"),
        ("possee", {}, "Did you mean 'pose'"),
        ("paper", {"length": -3}, "--length is -3"),
    ],
)
def test_a_recipe_that_would_be_another_is_refused(name: str, options: dict, says: str) -> None:
    with pytest.raises(DataError, match=says):
        resolved(name, **options)
