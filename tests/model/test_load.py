"""A tokenizer is read once for all folders that have the same one."""

import json
import shutil
from pathlib import Path

from ropewalk.checkpoint.folder import open_checkpoint
from ropewalk.model import load
from ropewalk.model.load import load_codec


def test_folders_with_one_tokenizer_share_it(tiny_llama: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(tiny_llama, tmp_path / "copy")
    assert load_codec(open_checkpoint(tiny_llama)).tokenizer is load_codec(open_checkpoint(copy)).tokenizer


def test_a_tokenizer_that_changed_in_its_folder_is_read_again(tiny_llama: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(tiny_llama, tmp_path / "copy")
    before = load_codec(open_checkpoint(copy)).encode("the the")
    path = copy / "tokenizer.json"
    content = json.loads(path.read_text())
    content["model"]["merges"] = []
    path.unlink()
    path.write_text(json.dumps(content))
    after = load_codec(open_checkpoint(copy)).encode("the the")
    assert len(after) > len(before)


def test_only_so_many_are_kept(tiny_llama: Path, tmp_path: Path) -> None:
    for length in range(100, 101 + load.KEPT_TOKENIZERS):
        copy = shutil.copytree(tiny_llama, tmp_path / str(length))
        path = copy / "tokenizer_config.json"
        content = json.loads(path.read_text()) | {"model_max_length": length}
        path.unlink()
        path.write_text(json.dumps(content))
        assert load_codec(open_checkpoint(copy)).tokenizer.model_max_length == length
    assert len(load._tokenizers) == load.KEPT_TOKENIZERS
