"""The whole way in one call: what its arms are given."""

import pytest

from ropewalk.errors import DataError
from ropewalk.pipeline import _steps_at


def test_each_target_has_its_own_steps_or_all_the_same() -> None:
    assert _steps_at([2048, 1024], [60, 160], usual=9) == {1024: 160, 2048: 60}
    assert list(_steps_at([2048, 1024], [60, 160], usual=9)) == [1024, 2048]  # arms run in that order
    assert _steps_at([512, 1024], 50, usual=9) == _steps_at([512, 1024], [50], usual=9) == {512: 50, 1024: 50}
    assert _steps_at([512], None, usual=9) == {512: 9}
    with pytest.raises(DataError, match=r"--steps has 3 numbers, and there are 2 targets: 512, 1024"):
        _steps_at([512, 1024], [1, 2, 3], usual=9)
