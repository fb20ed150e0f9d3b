"""The recipes of paper/recipes: what the table gives, and each passes its dry run; the dry run itself sees what is wrong."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

RECIPES = Path(__file__).parents[2] / "paper" / "recipes"
NAMES = [
    "llama-7b", "llama-13b", "llama-33b", "llama-65b", "tinyllama-1.1b", "olmo2-1b", "smollm2-360m", "smollm2-1.7b",
]  # fmt: skip


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> dict[str, ModuleType]:
    monkeypatch.syspath_prepend(RECIPES)
    for name in ("models", "make", "dry_run"):
        sys.modules.pop(name, None)
    return {name: importlib.import_module(name) for name in ("models", "make", "dry_run")}


def text_of(name: str) -> str:
    return (RECIPES / f"{name}.md").read_text(encoding="utf-8")


def model_of(scripts: dict[str, ModuleType], name: str):
    return next(model for model in scripts["models"].MODELS if model.name == name)


def test_every_model_of_the_table_has_its_file_and_no_file_is_without_one(scripts) -> None:
    assert [model.name for model in scripts["models"].MODELS] == NAMES
    assert {path.stem for path in RECIPES.glob("*.md")} == {*NAMES, "README"}


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_is_what_the_table_gives_and_its_dry_run_passes(scripts, name: str) -> None:
    text, model = text_of(name), model_of(scripts, name)
    assert text == scripts["make"].recipe(model), "run python paper/recipes/make.py"
    assert scripts["dry_run"].try_recipe(model, text) == []
    verbs = [command.verb for command in scripts["dry_run"].commands_of(text)]
    tuned = sum(2 + (target in model.direct) for target in model.targets)
    assert [verbs.count(verb) for verb in ("extend", "tune", "evaluate")] == [tuned, tuned, tuned + 1]


@pytest.mark.model
@pytest.mark.parametrize("name", NAMES)
def test_transformers_builds_the_extended_model_without_memory(scripts, name: str) -> None:
    assert scripts["dry_run"].try_model(model_of(scripts, name)) == []


def test_the_paper_s_runs_are_in_them(scripts) -> None:
    """Its batches, steps, rates and baseline, from section 3.1, by hand."""
    commands = list(scripts["dry_run"].commands_of(text_of("llama-7b")))
    tunes = {c.given["model"]: c.given for c in commands if c.verb == "tune"}
    pi = tunes["llama-7b/8k/pi/extended"]
    assert (pi["steps"], pi["batch_tokens"], pi["learning_rate"], pi["recipe"]) == (1000, "512k", 2e-5, "paper")
    assert tunes["llama-7b/32k/pi/extended"]["batch_tokens"] == "4m"  # 128 sequences of 32,768
    direct = tunes["llama-7b/8k/direct/extended"]
    assert (direct["steps"], direct["recipe"], direct["batch_tokens"]) == (10_000, "direct", "512k")
    assert "SlimPajama" in tunes["llama-7b/8k/pi-redpajama/extended"]["data"][0]
    large = [c for c in scripts["dry_run"].commands_of(text_of("llama-65b")) if c.verb == "tune"]
    assert {c.given["learning_rate"] for c in large} == {1e-5} and large[0].given["batch_tokens"] == "1m"
    # 18 bear it: 16 bytes a parameter are 65 GB of 75 on each of 16, and no room for what is gathered
    assert large[0].processes == 32


@pytest.mark.parametrize(
    ("was", "becomes", "says"),
    [
        ("--nproc-per-node 2 -m ropewalk tune", "--nproc-per-node 1 -m ropewalk tune", "1 GPUs do not bear it"),
        ("--nproc-per-node 2 -m ropewalk tune", "--nproc-per-node 7 -m ropewalk tune", "not shared evenly by 7"),
        ("uncopyrighted@3be90335b66f24456a5d6659d9c8d208c0357119", "uncopyrighted", "is not pinned"),
        ("pg19@c021754c8e01c5b1cc83a1f549c1f97fbbb756b8", "pg19@main", "is not pinned"),
        ("--learning-rate 2e-5", "--learning-rate 3e-5", "is not the paper's"),
        ("--lengths 2k,4k,8k --out llama-7b/8k/pi/", "--lengths 2k,4k --out llama-7b/8k/pi/", "not the window"),
    ],
)
def test_the_dry_run_sees_what_is_wrong(scripts, was: str, becomes: str, says: str) -> None:
    text = text_of("llama-7b")
    assert was in text
    wrong = scripts["dry_run"].try_recipe(model_of(scripts, "llama-7b"), text.replace(was, becomes))
    assert any(says in one for one in wrong), wrong


def test_an_option_that_is_not_there_or_a_method_that_is_none_ends_the_dry_run(scripts) -> None:
    import ropewalk

    model, text = model_of(scripts, "olmo2-1b"), text_of("olmo2-1b")
    with pytest.raises(SystemExit, match="--step 1000"):
        scripts["dry_run"].try_recipe(model, text.replace("--steps 1000", "--step 1000"))
    with pytest.raises(ropewalk.RopewalkError, match="unknown method 'pii'"):
        scripts["dry_run"].try_recipe(model, text.replace("--method pi ", "--method pii "))
    with pytest.raises(ropewalk.RopewalkError, match="not above the window of 4096"):
        scripts["dry_run"].try_recipe(model, text.replace("--to 8k", "--to 4k"))
    with pytest.raises(ropewalk.RopewalkError, match=r"multiple|sequences|batch"):
        scripts["dry_run"].try_recipe(model, text.replace("--batch-tokens 512k", "--batch-tokens 5k"))
