"""The whole way in one call: what its arms are given."""

import pytest

from ropewalk.errors import DataError
from ropewalk.pipeline import _by_target


def test_each_target_has_its_own_number_or_all_the_same() -> None:
    assert _by_target("--steps", [2048, 1024], [60, 160]) == {1024: 160, 2048: 60}
    assert list(_by_target("--steps", [2048, 1024], [60, 160])) == [1024, 2048]  # arms run in that order
    assert _by_target("--steps", [512, 1024], 50) == _by_target("--steps", [512, 1024], [50]) == {512: 50, 1024: 50}
    assert _by_target("--learning-rate", [512, 1024], None) == {512: None, 1024: None}
    with pytest.raises(DataError, match=r"--steps has 3 numbers, and there are 2 targets: 512, 1024"):
        _by_target("--steps", [512, 1024], [1, 2, 3])
