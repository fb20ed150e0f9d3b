"""Results that ranks share through a folder: found by name, and missed with an error that says which."""

import json
from pathlib import Path

import pytest

from tests.ranks.launching import launched


@pytest.mark.ranks
def test_ranks_find_what_others_wrote_by_name_and_say_what_is_lost(tmp_path: Path) -> None:
    """Every file is there before a rank may look for it, and no listing of the folder is needed to find it. Where a file
    goes, all stop: the rank that misses its results says so, the others leave it to that one, and they are done again."""
    launched(2, "-m", "tests.ranks.pieces", str(tmp_path))
    first, second = (json.loads((tmp_path / f"found-{rank}.json").read_text()) for rank in (0, 1))
    assert first["begun"] == second["begun"] == ["begun-1.jsonl", "begun.jsonl"]
    assert first["met"] == second["met"] == {"a": 0, "b": 1}
    kind, said = first["said"]
    assert kind == "RankError" and "rank 0 does not see 1 of the results" in said and "'b'" in said
    assert said.count("\n") == 2 and "--resume" in said
    assert second["said"][0] == "FailedElsewhere"
    assert (first["again"], second["again"]) == ([], ["b"])
