"""Parquet files and data sets: real ones, made here; nothing is fetched."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from ropewalk.errors import DataError
from ropewalk.text.documents import Document, document_files, documents, text_sha256
from ropewalk.text.sources import sources

TEXTS = ["one", "  ", None, "two\n", "three"]


def parquet(path: Path, columns: dict, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.table(columns), path, **options)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data set as it lies on the hub: two files of one split, one of another."""
    for name, texts in (("train-00000", ["a", "b"]), ("train-00001", ["c"]), ("validation-00000", ["v"])):
        parquet(tmp_path / "set" / "data" / f"{name}.parquet", {"text": texts, "more": [1] * len(texts)})
    return tmp_path / "set"


def read(*data: object) -> list[str]:
    return [document.text for document in sources([str(one) for one in data]).documents()]


def test_a_row_of_a_parquet_file_is_a_document(tmp_path: Path) -> None:
    file = parquet(tmp_path / "a.parquet", {"number": range(5), "text": TEXTS})
    assert list(documents([file])) == [
        Document("a.parquet:1", "one"), Document("a.parquet:4", "two\n"), Document("a.parquet:5", "three"),
    ]  # fmt: skip
    assert document_files([tmp_path]) == [file]


def test_a_parquet_file_is_read_no_further_than_it_is_asked(tmp_path: Path) -> None:
    """Its second half is destroyed, and no one notices before it is reached."""
    file = parquet(
        tmp_path / "a.parquet", {"text": [f"{i:03} " * 500 for i in range(1000)]}, row_group_size=100, compression="none",
        use_dictionary=False,
    )  # fmt: skip
    whole = file.read_bytes()
    half = len(whole) // 2
    file.write_bytes(whole[:half] + bytes(len(whole) // 4) + whole[half + len(whole) // 4 :])
    found = documents([file])
    assert [next(found).text[:3] for _ in range(300)] == [f"{i:03}" for i in range(300)]


@pytest.mark.parametrize(
    ("columns", "says"),
    [({"body": ["a"]}, r'no column "text"(.|\n)*there are body'), ({"text": [1]}, "row 1 of .* holds int, not a text")],
)
def test_parquet_files_without_texts_are_refused(tmp_path: Path, columns: dict, says: str) -> None:
    with pytest.raises(DataError, match=says):
        list(documents([parquet(tmp_path / "a.parquet", columns)]))


def test_a_broken_parquet_file_and_a_missing_package_are_named(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"a\.parquet is not a whole parquet file"):
        list(documents([tmp_path / "a.parquet"]))
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(DataError, match=r"parquet files need(.|\n)*pip install 'ropewalk\[data\]'"):
        list(documents([tmp_path / "a.parquet"]))


def test_a_data_set_in_a_folder_is_read_by_split(folder: Path) -> None:
    assert read(f"hf:{folder}") == ["a", "b", "c"]
    assert read(f"hf:{folder}::validation") == read(f"hf:{folder}:default:validation") == ["v"]
    asked = sources([f"hf:{folder}::validation"])
    assert asked.inputs() == [{"path": f"hf:{folder}::validation", "config": None, "split": "validation"}]
    assert next(asked.documents()).name == f"hf:{folder}::validation:1"


def test_files_come_before_data_sets_and_their_order_is_the_seed_s(folder: Path, tmp_path: Path) -> None:
    files = [tmp_path / f"{i}.txt" for i in range(8)]
    for file in files:
        file.write_text(file.stem)
    asked = sources([f"hf:{folder}", *map(str, files)])
    orders = [[document.text for document in asked.shuffled(seed).documents()] for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0][:8]) == sorted(orders[2][:8]) == [str(i) for i in range(8)]
    assert orders[0][8:] == ["a", "b", "c"]


def test_a_data_set_is_read_no_further_than_it_is_asked(folder: Path) -> None:
    (folder / "data" / "train-00001.parquet").write_bytes(b"PAR1 and no more")
    found: Iterator[Document] = sources([f"hf:{folder}"]).documents()
    assert [next(found).text, next(found).text] == ["a", "b"]
    with pytest.raises(DataError, match=r"the data set hf:.* cannot be read"):
        next(found)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("hf:", "is not a data set"),
        ("hf:a:b:c:d", "is not a data set"),
        ("hf:org/name@", "does not say what of which"),
        ("hf:./nowhere", r"no such folder: \./nowhere"),
        ("FOLDER::nope", r"cannot be read: Bad split: nope(.|\n)*It is a folder here"),
        ("FOLDER:nope", r"cannot be read: BuilderConfig 'nope' not found"),
        ("BODIES", r"row 1 of .* has no text(.|\n)*the columns are body"),
    ],
)
def test_what_is_no_data_set_is_said(folder: Path, tmp_path: Path, given: str, says: str) -> None:
    parquet(tmp_path / "bodies" / "train.parquet", {"body": ["a"]})
    given = given.replace("FOLDER", f"hf:{folder}").replace("BODIES", f"hf:{tmp_path / 'bodies'}")
    with pytest.raises(DataError, match=says):
        read(given)


def test_without_datasets_the_message_says_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"data sets of the hub need(.|\n)*pip install 'ropewalk\[data\]'"):
        read(f"hf:{folder}")


OFFLINE = """
import sys, warnings
warnings.simplefilter("error")
from ropewalk.errors import DataError
from ropewalk.text.sources import sources
for name in sys.argv[1:]:
    try:
        print([document.text for document in sources([name]).documents()])
    except DataError as error:
        print(error)
"""


def test_offline_what_is_cached_is_found_and_the_rest_is_one_message(folder: Path, tmp_path: Path) -> None:
    """As `hf download` leaves a data set in its cache; the real client in a process of its own, told to be offline."""
    commit = "a" * 40
    kept = tmp_path / "home" / "hub" / "datasets--org--kept"
    shutil.copytree(folder, kept / "snapshots" / commit)
    (kept / "refs").mkdir()
    (kept / "refs" / "main").write_text(commit)
    older = shutil.copytree(folder, kept / "snapshots" / ("b" * 40))
    parquet(older / "data" / "train-00000.parquet", {"text": ["as it was"], "more": [1]})
    environment = {
        "PATH": "/usr/bin:/bin",
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_OFFLINE": "1",
        "HOME": str(tmp_path),
    }
    done = subprocess.run(
        [sys.executable, "-c", OFFLINE, "hf:org/kept", f"hf:org/kept@{'b' * 40}", "hf:org/other", f"hf:{folder}::validation"],
        capture_output=True, text=True, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    kept_there, as_it_was, *message, here = done.stdout.splitlines()
    assert kept_there == "['a', 'b', 'c']" and as_it_was == "['as it was', 'c']" and here == "['v']"
    assert message[0].startswith("the data set hf:org/other cannot be read: ") and "HF_HUB_OFFLINE is set" in message[1]
    assert "Traceback" not in done.stderr


def test_one_text_has_one_digest_wherever_it_lies(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a text\n")
    (tmp_path / "b.jsonl").write_text(json.dumps({"text": "a text"}) + "\n" + '{"text": "a  text"}\n')
    parquet(tmp_path / "c.parquet", {"text": ["a text  "]})
    a, b, other, c = [document.sha256 for document in documents(document_files([tmp_path]))]
    assert a == b == c != other
    assert text_sha256("\ud800") != text_sha256("\ud801")  # of reports, too, which JSON may have spoiled
