"""The whole way in one call: what its arms are given."""

from pathlib import Path

import pytest

from ropewalk.errors import DataError, RopewalkError
from ropewalk.pipeline import run
from ropewalk.record import Run, input_file, read_run
from ropewalk.targets import by_target
from tests.conftest import TEXT


def test_each_target_has_its_own_number_or_all_the_same() -> None:
    assert by_target("--steps", [2048, 1024], [60, 160]) == {1024: 160, 2048: 60}
    assert list(by_target("--steps", [2048, 1024], [60, 160])) == [1024, 2048]  # arms run in that order
    assert by_target("--steps", [512, 1024], 50) == by_target("--steps", [512, 1024], [50]) == {512: 50, 1024: 50}
    assert by_target("--learning-rate", [512, 1024], None) == {512: None, 1024: None}
    with pytest.raises(DataError, match=r"--steps has 3 numbers, and there are 2 targets: 512, 1024"):
        by_target("--steps", [512, 1024], [1, 2, 3])


def test_a_run_is_not_resumed_on_other_texts(tiny_llama: Path, tmp_path: Path) -> None:
    """The split is kept from the first start: a record of the new texts' digests would be of texts that were not used."""
    text, out = tmp_path / "text.txt", tmp_path / "out"
    text.write_text(TEXT)
    given = {
        "model": str(tiny_llama), "to": [128], "method": ["pi"], "data": [str(text)], "dtype": None, "device": None,
        "steps": 1, "learning_rate": None, "seed": 0,
    }  # fmt: skip
    out.mkdir()
    begun = Run(command="run", given=given, resolved={}, ropes={}, seed=0, inputs=[input_file(text)], status="failed")
    begun.write(out)
    text.write_text(TEXT.replace("fox", "cat"))
    with pytest.raises(DataError, match=r"the texts are not those that .* was begun with: .*text\.txt"):
        run(tiny_llama, to=128, method="pi", data=text, steps=1, out=out, resume=True)
    assert read_run(out) == begun


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"dtype": "foo"}, "unknown dtype 'foo'"),
        ({"device": "foo"}, "no device 'foo'"),
        ({"seed": -1}, "--seed is -1"),
        ({"to": []}, "--to is empty"),
        ({"to": [256, 128, 256], "steps": [1, 2, 3]}, "--to has 256 twice"),
        ({"method": []}, "--method is empty"),
        ({"method": ["pi", "yarn", "pi"]}, "--method has pi twice"),
        ({"method": ["pi", "longrope"]}, "method longrope needs factors, which run has no option for"),
        ({"method": "abf"}, "method abf needs theta, which run has no option for"),
        ({"method": "PI"}, "unknown method 'PI'. Did you mean 'pi'?"),
    ],
)
def test_what_makes_no_study_is_refused_before_a_folder_is_made(
    settings: dict, says: str, tiny_llama: Path, tmp_path: Path
) -> None:
    with pytest.raises(RopewalkError) as refused:
        run(tiny_llama, out=tmp_path / "out", **({"to": [128], "steps": 1} | settings))
    assert says in str(refused.value)
    assert not (tmp_path / "out").exists()
