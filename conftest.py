"""For the examples in docstrings: `folder`, an empty folder of their own. And how much is fuzzed."""

import hypothesis
import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fuzz", type=int, default=100_000, help="inputs for tests/faults/test_fuzz.py, over all readers")


@pytest.fixture(autouse=True)
def _example_folder(
    request: pytest.FixtureRequest, doctest_namespace: dict, tmp_path_factory: pytest.TempPathFactory
) -> None:
    if isinstance(request.node, pytest.DoctestItem):
        doctest_namespace["folder"] = tmp_path_factory.mktemp("example")


# A busy machine is no bug: no deadline for one example. The same examples each time, so that a failure is one for all.
hypothesis.settings.register_profile("ropewalk", deadline=None, derandomize=True, max_examples=50)
hypothesis.settings.load_profile("ropewalk")
