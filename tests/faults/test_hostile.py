"""Checkpoints from strangers: each lie is refused with one message, soon, in little memory, and nothing is touched."""

import json
import pickle
import re
import shutil
from collections import Counter
from pathlib import Path

import pytest

from ropewalk.checkpoint.folder import open_checkpoint
from ropewalk.errors import CheckpointError, RopewalkError
from ropewalk.extension import extend
from ropewalk.inspection import inspect
from ropewalk.model.load import load_model
from ropewalk.reports.sources import sources
from tests.conftest import config_of
from tests.faults.forks import Ended, ended
from tests.faults.fuzz import CORPUS
from tests.faults.hostile import CHECKPOINTS
from tests.faults.made import checkpoint, state_of
from tests.faults.work import bounded_verb

MEMORY = 700 * 2**20  # bytes beyond what the process began with
SECONDS = 20
OURS = re.compile(r"^(Checkpoint|Rope|Record|Data|Output)Error: ", re.MULTILINE)


def assert_one_message(done: Ended) -> None:
    """One error of ours in three parts, and nothing after it: what is wrong; what was expected; what to do."""
    assert done.code == 2, done.said[-2000:]
    begin = OURS.search(done.said)
    assert begin and "Traceback" not in done.said, done.said[-2000:]
    message = done.said[begin.start() :]
    lines = message.rstrip("\n").split("\n")
    assert len(lines) >= 3 and all(line.startswith("  ") for line in lines[1:]), done.said
    assert len(message) < 2_000 and not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", message)


def answer(*arguments: object, log: Path) -> Ended:
    return ended(bounded_verb, MEMORY, SECONDS, *arguments, log=log)


@pytest.mark.faults
def test_the_sound_one_is_taken(tmp_path: Path) -> None:
    """Without it, every refusal below could have a reason of its own."""
    folder = checkpoint(tmp_path / "place" / "model")
    for number, options in enumerate((["inspect", folder], ["extend", folder, "--to", 128, "--out", tmp_path / "x"])):
        done = answer(*options, log=tmp_path / f"log{number}")
        assert done.code == 0, done.said


@pytest.mark.faults
@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_a_hostile_checkpoint_is_refused(kind: str, tmp_path: Path, tried: Counter[str]) -> None:
    """In processes of their own, by `inspect`, by `inspect --to` and by `extend` alike."""
    folder, out = checkpoint(tmp_path / "place" / "model"), tmp_path / "place" / "long"
    CHECKPOINTS[kind](folder)
    before = state_of(tmp_path / "place")
    first = answer("inspect", folder, log=tmp_path / "a")
    assert_one_message(first)
    same = answer("inspect", folder, "--to", 128, "--json", log=tmp_path / "b")
    extended = answer("extend", folder, "--to", 128, "--out", out, log=tmp_path / "c")
    assert first.said == same.said == extended.said
    assert state_of(tmp_path / "place") == before
    tried["kinds of hostile file"] += 1


LARGE = ("100 MB", "million", "90 GB")


@pytest.mark.parametrize("kind", [kind for kind in CHECKPOINTS if not any(size in kind for size in LARGE)])
def test_the_same_in_this_process(kind: str, tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "place" / "model")
    CHECKPOINTS[kind](folder)
    with pytest.raises(RopewalkError) as refused:
        inspect(folder)
    lines = str(refused.value).splitlines()
    assert len(lines) >= 3 and all(line.startswith("  ") for line in lines[1:])
    with pytest.raises(type(refused.value), match=re.escape(str(refused.value))):
        extend(folder, to=128, out=tmp_path / "place" / "long")
    assert not (tmp_path / "place" / "long").exists()


@pytest.mark.faults
def test_plan_needs_the_config_alone(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    assert answer("plan", folder, "--json", log=tmp_path / "log").code == 0
    for number, kind in enumerate(kind for kind in CHECKPOINTS if kind.startswith("config: theta")):
        folder = checkpoint(tmp_path / f"model{number}")
        CHECKPOINTS[kind](folder)
        assert_one_message(answer("plan", folder, log=tmp_path / "log"))


def test_there_are_as_many_kinds_as_promised() -> None:
    assert len(CHECKPOINTS) >= 60


@pytest.mark.faults
def test_what_is_printed_cannot_steer_the_terminal(tmp_path: Path) -> None:
    """Escape sequences, half a surrogate pair and letters that turn the line round, in names that are shown."""
    folder = checkpoint(tmp_path / "model")
    odd = "\x1b[2Jevil\ud800\u202e\x9b"
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": odd}))
    for options in (["inspect", folder], ["inspect", folder, "--json"], ["check", folder]):
        done = answer(*options, log=tmp_path / "log")
        assert done.code == 0 and not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]", done.said), done.said
    (folder / "config.json").write_text(json.dumps(config | {"rope_scaling": {"rope_type": "default", odd: 1}}))
    assert_one_message(answer("inspect", folder, log=tmp_path / "log"))


PAYLOAD = 'from pathlib import Path\nPath({marker!r}).write_text("ran")\n'


@pytest.fixture
def baited(tiny_llama: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A real model with code and pickles beside it that leave a mark when they run."""
    folder, marker = shutil.copytree(tiny_llama, tmp_path / "model"), tmp_path / "ran"
    code = PAYLOAD.format(marker=str(marker))
    for name in ("modeling_evil.py", "tokenization_evil.py", "configuration_evil.py"):
        (folder / name).write_text(code)
    for name in ("pytorch_model.bin", "adapter_model.bin", "training_args.bin", "optimizer.pt"):
        (folder / name).write_bytes(pickle.dumps(Marks(str(marker))))
    return folder, marker


class Marks:
    """A pickle that makes a file when it is opened."""

    def __init__(self, path: str):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


AUTO_MAP = {
    "AutoConfig": "configuration_evil.Evil", "AutoModelForCausalLM": "modeling_evil.Evil", "AutoModel": "modeling_evil.Evil",
    "AutoTokenizer": ["tokenization_evil.Evil", "tokenization_evil.Evil"],
}  # fmt: skip


@pytest.mark.parametrize("model_type", ["llama", "evil"])
def test_no_code_of_a_checkpoint_is_run(baited: tuple[Path, Path], model_type: str) -> None:
    """Whatever its config asks for: a type that is known is transformers' own, and another is refused."""
    folder, marker = baited
    config = config_of(folder) | {"auto_map": AUTO_MAP, "model_type": model_type, "architectures": ["Evil"]}
    (folder / "config.json").write_text(json.dumps(config | {"trust_remote_code": True}))
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(
        json.dumps(tokenizer | {"auto_map": AUTO_MAP, "trust_remote_code": True})
    )
    inspect(folder)
    if model_type == "llama":
        assert load_model(open_checkpoint(folder), device="cpu").model.config.model_type == "llama"
    else:
        with pytest.raises(RopewalkError):
            load_model(open_checkpoint(folder), device="cpu")
    assert not marker.exists()


def test_no_pickle_is_opened(baited: tuple[Path, Path]) -> None:
    folder, marker = baited
    load_model(open_checkpoint(folder), device="cpu")  # with pickles beside: they are passed over
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"a pickle, which can run code(.*\n)*.*save_pretrained"):
        open_checkpoint(folder)
    assert not marker.exists()
    pickle.loads((folder / "optimizer.pt").read_bytes()).close()
    assert marker.exists()  # the bait works


def test_links_of_a_hub_cache_are_followed_to_its_blobs_alone(tmp_path: Path) -> None:
    repository = tmp_path / "models--some--model"
    snapshot, blobs = checkpoint(repository / "snapshots" / "0123"), repository / "blobs"
    blobs.mkdir()
    for path in list(snapshot.iterdir()):
        path.rename(blobs / path.name)
        path.symlink_to(Path("../../blobs") / path.name)
    assert inspect(snapshot)["parameters"] == 10
    (snapshot / "config.json").unlink()
    (repository / "config.json").write_bytes((blobs / "config.json").read_bytes())
    (snapshot / "config.json").symlink_to("../../config.json")  # of the repository, and no blob
    with pytest.raises(CheckpointError, match="is a link to"):
        inspect(snapshot)


def test_a_part_of_a_record_outside_its_folder_is_left_out_of_the_page(tmp_path: Path) -> None:
    whole = (CORPUS / "record" / "rows.json").read_text()
    for name in ("outside", "study"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(whole.replace('"m"', '"of outside"') if name == "outside" else whole)
    record = json.loads(whole)
    record["resolved"]["children"] = ["../outside", str(tmp_path / "outside"), "../study", 7]
    (tmp_path / "study" / "run.json").write_text(json.dumps(record))
    found = sources([tmp_path / "study"])
    assert [item.name for item in found.items] == ["study"] and len(found.notes) == 4
