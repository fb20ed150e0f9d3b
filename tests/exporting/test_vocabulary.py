"""The tokenizer goes along: the same tokens under the same ids, merged in the same order."""

import inspect
import json
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import gguf
import pytest

from ropewalk.checkpoint.folder import open_checkpoint
from ropewalk.errors import CheckpointError
from ropewalk.exporting.export import export
from ropewalk.exporting.vocabulary import pre_tokenizer_name, read_vocabulary
from ropewalk.progress import Progress
from tests.conftest import TEXT, make_llama

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6


def written(model: Path, out: Path) -> dict[str, Any]:
    """Every key under tokenizer.ggml of the exported file."""
    run = export(model, out=out)
    fields = gguf.GGUFReader(out / run.resolved["file"]).fields
    return {k.removeprefix("tokenizer.ggml."): f.contents() for k, f in fields.items() if k.startswith("tokenizer.")}


def edited(model: Path, folder: Path, change) -> Path:
    """A copy whose tokenizer.json went through `change`."""
    shutil.copytree(model, folder)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    change(tokenizer)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    return folder


def test_byte_level_bpe_is_the_tokenizer_of_transformers(tiny_llama: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    keys = written(tiny_llama, tmp_path / "out")
    theirs = AutoTokenizer.from_pretrained(tiny_llama)
    assert keys["tokens"][: len(theirs)] == [theirs.convert_ids_to_tokens(index) for index in range(len(theirs))]
    assert keys["token_type"][: len(theirs)] == [CONTROL, CONTROL] + [NORMAL] * (len(theirs) - 2)
    merges = json.loads((tiny_llama / "tokenizer.json").read_text())["model"]["merges"]
    assert keys["merges"] == [" ".join(pair) for pair in merges]
    assert (keys["model"], keys["pre"]) == ("gpt2", "smollm")
    assert (keys["bos_token_id"], keys["eos_token_id"]) == (0, 1)
    assert (keys["add_bos_token"], keys["add_eos_token"]) == (True, False)


def test_no_bos_is_written_as_such(tiny_llama: Path, tmp_path: Path) -> None:
    """llama.cpp adds one by itself under some names of splits."""
    model = edited(tiny_llama, tmp_path / "model", lambda tokenizer: tokenizer.update(post_processor=None))
    assert written(model, tmp_path / "out")["add_bos_token"] is False


def test_the_first_of_several_ends_is_written(tiny_llama: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_llama, tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(json.dumps(config | {"eos_token_id": [1, 5]}))
    (tmp_path / "model" / "tokenizer_config.json").unlink()
    assert written(tmp_path / "model", tmp_path / "out")["eos_token_id"] == 1


def test_embeddings_beyond_the_tokens_are_unused(tiny_llama: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    keys, used = written(tiny_llama, tmp_path / "out"), len(AutoTokenizer.from_pretrained(tiny_llama))
    assert keys["tokens"][used:] == [f"[PAD{index}]" for index in range(used, 300)]
    assert keys["token_type"][used:] == [UNUSED] * (300 - used)
    assert used < 300


def test_added_tokens_beside_the_vocabulary(tmp_path: Path, tiny_tokenizer: Path) -> None:
    added = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}

    def add(tokenizer: dict) -> None:
        tokenizer["added_tokens"] += [
            {"id": 300, "content": "<|call|>", "special": True} | added,
            {"id": 301, "content": "<tool>", "special": False} | added,
        ]

    model = edited(make_llama(tmp_path / "base", tiny_tokenizer, vocab_size=302), tmp_path / "model", add)
    keys = written(model, tmp_path / "out")
    assert keys["tokens"][300:] == ["<|call|>", "<tool>"]
    assert keys["token_type"][300:] == [CONTROL, USER_DEFINED]


def test_more_tokens_than_embeddings_are_refused(tmp_path: Path, tiny_tokenizer: Path) -> None:
    with pytest.raises(CheckpointError, match="and there are 290 embeddings"):
        export(make_llama(tmp_path / "short", tiny_tokenizer, vocab_size=290), out=tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "tokenizer.json").unlink(), "holds no tokenizer"),
        (lambda folder: (folder / "tokenizer.json").write_text("{"), "cannot be read"),
        (lambda folder: (folder / "tokenizer.json").write_text('{"model": {"type": "Unigram"}}'), "'Unigram'"),
    ],
)
def test_no_tokenizer_that_llama_cpp_computes(tiny_llama: Path, tmp_path: Path, change, message: str) -> None:
    shutil.copytree(tiny_llama, tmp_path / "model")
    change(tmp_path / "model")
    with pytest.raises(CheckpointError, match=message):
        export(tmp_path / "model", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def published_patterns() -> dict[str, str]:
    """Patterns as transformers spells them when it makes such tokenizers itself."""
    from transformers.convert_slow_tokenizer import TikTokenConverter
    from transformers.models.qwen2 import tokenization_qwen2

    default = inspect.signature(TikTokenConverter).parameters["pattern"].default
    return {"qwen2": tokenization_qwen2.PRETOKENIZE_REGEX, "llama-bpe": default}


def splitting(*steps: dict, ignore_merges: bool = False) -> dict[str, Any]:
    return {
        "model": {"ignore_merges": ignore_merges},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": list(steps)},
    }


BYTES = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}


@pytest.mark.parametrize("name", ["qwen2", "llama-bpe"])
def test_published_patterns_have_their_name(name: str) -> None:
    split = {"type": "Split", "pattern": {"Regex": published_patterns()[name]}, "behavior": "Isolated", "invert": False}
    assert pre_tokenizer_name(splitting(split, BYTES, ignore_merges=name == "llama-bpe")) == (name, ())


def test_gpt_2_needs_no_pattern() -> None:
    alone = {"model": {}, "pre_tokenizer": BYTES | {"use_regex": True}}
    assert pre_tokenizer_name(alone) == ("gpt-2", ())


@pytest.mark.parametrize(
    "step",
    [
        {"type": "Split", "pattern": {"Regex": r"\s+"}, "behavior": "Isolated", "invert": False},
        {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithNext", "invert": False},
        {"type": "Whitespace"},
        {"type": "Digits", "individual_digits": False},
    ],
)
def test_unknown_splits_are_said_plainly(step: dict) -> None:
    name, doubts = pre_tokenizer_name(splitting(step, BYTES))
    assert name == "gpt-2"
    assert "gpt-2 was written" in doubts[0]
    assert "other tokens" in doubts[0]


def test_a_normalizer_and_a_space_before_texts_are_said() -> None:
    tokenizer = {"model": {}, "pre_tokenizer": BYTES | {"use_regex": True, "add_prefix_space": True}}
    name, doubts = pre_tokenizer_name(tokenizer | {"normalizer": {"type": "NFC"}})
    assert (name, len(doubts)) == ("gpt-2", 2)


def test_doubts_are_warned_of_and_recorded(tiny_llama: Path, tmp_path: Path) -> None:
    said = []

    class Heard(Progress):
        def warn(self, text: str) -> None:
            said.append(text)

    model = edited(tiny_llama, tmp_path / "model", lambda t: t["pre_tokenizer"]["pretokenizers"].pop(0))
    model = edited(model, tmp_path / "other", lambda t: t["model"].update(ignore_merges=True))
    run = export(model, out=tmp_path / "out", progress=Heard())
    assert said == run.resolved["doubts"]
    assert "ignore_merges true" in said[0]


@pytest.fixture(scope="module")
def sentencepiece_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama with a SentencePiece BPE of 300 pieces, bytes among them."""
    import sentencepiece

    folder = make_llama(tmp_path_factory.mktemp("sentencepiece") / "model", None)
    (folder.parent / "texts").write_text(TEXT.replace(". ", ".\n"))
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder.parent / "texts"), model_prefix=str(folder / "tokenizer"), model_type="bpe", vocab_size=300,
        byte_fallback=True, hard_vocab_limit=True, minloglevel=2, normalization_rule_name="identity",
        remove_extra_whitespaces=False,
    )  # fmt: skip
    (folder / "tokenizer.vocab").unlink()
    return folder


def merged_by_scores(text: str, tokens: list[str], scores: list[float]) -> list[int]:
    """llama.cpp's merging: of all neighbours that form a token, the best score first, the leftmost among equals."""
    ids = {token: index for index, token in enumerate(tokens)}
    pieces = list("▁" + text.replace(" ", "▁"))
    while True:
        pairs = [(scores[ids[a + b]], -at) for at, (a, b) in enumerate(pairwise(pieces)) if a + b in ids]
        if not pairs:
            break
        at = -max(pairs)[1]
        pieces[at : at + 2] = [pieces[at] + pieces[at + 1]]
    spelled = [[piece] if piece in ids else [f"<0x{byte:02X}>" for byte in piece.encode()] for piece in pieces]
    return [ids[token] for group in spelled for token in group]


SENTENCES = ("The quick brown fox", "jumps over  the dogs 90125", "zebra über 🦙")


def test_sentencepiece_keeps_pieces_scores_and_types(sentencepiece_model: Path, tmp_path: Path) -> None:
    import sentencepiece

    keys = written(sentencepiece_model, tmp_path / "out")
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(sentencepiece_model / "tokenizer.model"))
    assert (keys["model"], keys["pre"], keys["add_space_prefix"], keys["add_bos_token"]) == (
        "llama",
        "default",
        True,
        True,
    )
    assert keys["tokens"] == [theirs.id_to_piece(index) for index in range(300)]
    assert keys["token_type"][:4] == [UNKNOWN, CONTROL, CONTROL, BYTE]
    for text in SENTENCES:
        assert merged_by_scores(text, keys["tokens"], keys["scores"]) == theirs.encode(text)


def test_merges_of_a_converted_sentencepiece_give_the_same_order(sentencepiece_model: Path, tmp_path: Path) -> None:
    """transformers 5 saves tokenizer.json alone, without the scores."""
    import sentencepiece
    from tokenizers import Tokenizer, decoders, models, normalizers

    theirs = sentencepiece.SentencePieceProcessor(model_file=str(sentencepiece_model / "tokenizer.model"))
    vocabulary = {theirs.id_to_piece(index): index for index in range(300)}
    merges = sorted(
        (vocabulary[piece], piece[:cut], piece[cut:])
        for piece in vocabulary
        for cut in range(1, len(piece))
        if piece[:cut] in vocabulary and piece[cut:] in vocabulary and not theirs.is_byte(vocabulary[piece])
    )
    converted = Tokenizer(
        models.BPE(vocabulary, [(one, other) for _, one, other in merges], byte_fallback=True, fuse_unk=True)
    )
    converted.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    converted.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    converted.add_special_tokens(["<s>", "</s>"])
    model = shutil.copytree(sentencepiece_model, tmp_path / "model")
    (model / "tokenizer.model").unlink()
    converted.save(str(model / "tokenizer.json"))
    keys = written(model, tmp_path / "out")
    assert keys["model"] == "llama"
    assert keys["add_space_prefix"] is True
    assert keys["token_type"][1:4] == [CONTROL, CONTROL, BYTE]
    for text in SENTENCES:
        assert merged_by_scores(text, keys["tokens"], keys["scores"]) == theirs.encode(text)


def test_a_sentencepiece_of_another_kind_is_refused(sentencepiece_model: Path, tmp_path: Path) -> None:
    import sentencepiece

    model = shutil.copytree(sentencepiece_model, tmp_path / "model")
    sentencepiece.SentencePieceTrainer.train(
        input=str(sentencepiece_model.parent / "texts"), model_prefix=str(model / "tokenizer"), model_type="unigram",
        vocab_size=60, hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    with pytest.raises(CheckpointError, match="not of BPE"):
        read_vocabulary(open_checkpoint(model), 300)
