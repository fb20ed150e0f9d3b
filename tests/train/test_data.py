"""Texts for tuning: which are read, whether they are long enough, and that no one is measured on them afterwards."""

import json
import random
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from ropewalk.checkpoint.folder import open_checkpoint
from ropewalk.checkpoint.trained_on import TRAINED_ON, trained_on
from ropewalk.errors import CheckpointError, DataError
from ropewalk.evals.evaluate import evaluate
from ropewalk.extension import extend
from ropewalk.model.load import TextCodec, load_codec
from ropewalk.pilot.corpus import heldout_modules, training_texts
from ropewalk.pipeline import run
from ropewalk.progress import Progress
from ropewalk.record import read_run
from ropewalk.rope.spec import Window
from ropewalk.text.documents import text_sha256
from ropewalk.text.retrieval import QUESTION, TASK
from ropewalk.train import data
from ropewalk.train.data import TextsRead, training_rows
from ropewalk.train.recipe import Recipe, resolved_recipe
from ropewalk.train.rows import SummaryRows, TokenRows
from ropewalk.train.tune import tune
from tests.conftest import TEXT


class Heard(Progress):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


@pytest.fixture(scope="module")
def extended(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny Llama of 64 tokens, by Position Interpolation at 128."""
    out = tmp_path_factory.mktemp("extended") / "long"
    extend(tiny_llama, to=128, out=out)
    return out


@pytest.fixture(scope="module")
def codec(extended: Path) -> TextCodec:
    return load_codec(open_checkpoint(extended))


def jsonl(path: Path, texts: list[str], **more: str) -> Path:
    path.write_text("".join(json.dumps({"text": text, **more}) + "\n" for text in texts))
    return path


def different(count: int, characters: int) -> list[str]:
    """Texts that differ from their first word on."""
    return [f"{number:04} {TEXT}"[:characters] for number in range(count)]


def recipe(name: str = "paper", steps: int = 2, **options) -> Recipe:
    given = {"parameters": 1, "steps": steps, "window": Window(64, 128)} | options
    return resolved_recipe(name, **given)


def in_every_form(folder: Path, texts: list[str]) -> list[str]:
    """The same texts as a jsonl file, a parquet file, and a data set."""
    pyarrow.parquet.write_table(pyarrow.table({"text": texts}), folder / "texts.parquet")
    (folder / "set").mkdir()
    pyarrow.parquet.write_table(pyarrow.table({"text": texts}), folder / "set" / "train.parquet")
    return [str(jsonl(folder / "texts.jsonl", texts)), str(folder / "texts.parquet"), f"hf:{folder / 'set'}"]


def test_the_same_texts_make_the_same_rows_in_every_form(codec: TextCodec, tmp_path: Path) -> None:
    forms = in_every_form(tmp_path, different(9, 800))
    digests = {training_rows(codec, [form], recipe(), 0)[0].digest() for form in forms}
    assert len(digests) == 1


def test_no_more_documents_are_read_than_a_run_needs(codec: TextCodec, tmp_path: Path) -> None:
    for form in in_every_form(tmp_path, different(50, 800)):
        rows, read = training_rows(codec, [form], recipe(), 0)  # 2 steps of 4 rows of 128: 1,024 tokens
        assert isinstance(rows, TokenRows) and sum(read.sizes) == len(rows.tokens) >= 1024
        assert sum(read.sizes[:-1]) < 1024 and len(read.digests) == len(read.sizes) < 50


def test_documents_keep_their_beginnings(codec: TextCodec, tmp_path: Path) -> None:
    texts = [text[: 100 + 90 * number] for number, text in enumerate(different(9, 800))]
    rows, read = training_rows(codec, [jsonl(tmp_path / "a.jsonl", texts)], recipe(packing="documents"), 0)
    assert isinstance(rows, TokenRows) and rows.starts is not None
    assert all(rows.tokens[start] == codec.bos[0] for start in rows.starts)
    assert len(rows.starts) == len(read.sizes)


def test_rows_follow_the_recipe(codec: TextCodec, tmp_path: Path) -> None:
    data = [jsonl(tmp_path / "a.jsonl", different(9, 800))]
    pose, _ = training_rows(codec, data, recipe("pose"), 0)
    mixed, _ = training_rows(codec, data, recipe("mixed"), 0)
    pose_rows, mixed_rows = [pose.row(n) for n in range(40)], [mixed.row(n) for n in range(40)]
    assert all(len(row.tokens) == 64 and row.positions is not None for row in pose_rows)
    assert max(row.positions[-1] for row in pose_rows if row.positions is not None) in range(110, 128)
    assert [row.piece for row in mixed_rows] == [None, 64] * 20 and len(mixed_rows[0].tokens) == 128


def test_the_pilot_s_passkeys_follow_the_recipe_too() -> None:
    codec = load_codec(open_checkpoint("pilot"))
    window = Window(256, 1024)
    pose, _ = training_rows(codec, ["pilot"], resolved_recipe("pose", parameters=1, steps=4, window=window), 0)
    packed, _ = training_rows(
        codec, ["pilot"], resolved_recipe("paper", parameters=1, steps=4, window=window, packing="documents"), 0
    )
    asked = [row for row in map(pose.row, range(40)) if row.weights.max() > 1]
    assert asked and all(row.positions is not None and row.documents is None for row in asked)
    asked = [row for row in map(packed.row, range(40)) if row.weights.max() > 1]
    for row in asked:
        assert row.documents is not None
        begins = [place for place, token in enumerate(row.tokens.tolist()) if token == codec.bos[0]]
        assert begins[0] == 0 and row.documents[begins].tolist() == list(range(len(begins)))
    assert max(row.documents[-1] for row in asked if row.documents is not None) > 0


@pytest.mark.parametrize(("share", "least", "most"), [(0.0, 0.05, 0.13), (0.25, 0.18, 0.31), (1.0, 0.6, 0.8)])
def test_so_many_of_the_pilot_s_keys_are_drawn_to_the_ends(
    share: float, least: float, most: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Right after the task or right before the question: one key in eleven if drawn between them, seven in ten if drawn
    over the whole document and clipped."""
    assert data.PILOT_AT_ENDS == 0.25
    monkeypatch.setattr(data, "PILOT_AT_ENDS", share)
    codec, rng = load_codec(open_checkpoint("pilot")), random.Random(0)
    keys = at_ends = 0
    for _ in range(300):
        text = codec.decode(data._passkeys(codec, 256, rng).tokens.tolist())
        for part in text.split(TASK.strip())[1:]:
            before = part[: part.index("The pass key is")]
            after = part[part.index("is the pass key.") + len("is the pass key.") : part.index(QUESTION.strip())]
            keys, at_ends = keys + 1, at_ends + (not before.strip() or not after.strip())
    assert least < at_ends / keys < most


# Long documents


def test_a_document_of_exactly_the_window_is_not_longer() -> None:
    read = TextsRead([], [], [64, 65, 10, 61])
    assert read.tokens_beyond(64) == 65 and read.share_beyond(64) == 65 / 200


def test_texts_that_are_all_short_are_refused_unless_they_are_wanted(extended: Path, tmp_path: Path) -> None:
    """Each fits into the original window of 64 tokens, so that none teaches to attend over more."""
    data = [jsonl(tmp_path / "a.jsonl", different(200, 60))]
    for recipe_name in ("paper", "pose", "mixed", "direct"):
        with pytest.raises(DataError, match=r"none of the \d+ documents is longer than the original window of 64 tok"):
            tune(extended, out=tmp_path / "out", data=data, steps=1, recipe=recipe_name)
    assert not (tmp_path / "out").exists()
    heard = Heard()
    done = tune(extended, out=tmp_path / "out", data=data, steps=1, allow_short_documents=True, progress=heard)
    assert done.given["allow_short_documents"] and done.resolved["tokens_in_long_documents"] == 0
    assert any(warning.startswith("only 0% of the tokens come from documents longer") for warning in heard.warnings)
    tune(extended, out=tmp_path / "within", data=data, steps=1, length=64)  # nothing beyond the window is trained


@pytest.mark.parametrize(("short", "warned"), [(2, False), (40, True)])
def test_few_long_documents_are_worth_a_warning(extended: Path, tmp_path: Path, short: int, warned: bool) -> None:
    texts = [*different(short, 60), TEXT[:2000]]
    heard = Heard()
    done = tune(extended, out=tmp_path / "out", data=[jsonl(tmp_path / "a.jsonl", texts)], steps=40, progress=heard)
    share = done.resolved["share_in_long_documents"]
    codec = load_codec(open_checkpoint(extended))
    sizes = [len(codec.document(text)) for text in texts]
    assert done.resolved["tokens_in_long_documents"] == sizes[-1] > 64 >= max(sizes[:-1])
    assert share == pytest.approx(sizes[-1] / sum(sizes), abs=1e-4) and (share < 0.5) == warned
    assert any("come from documents longer" in warning for warning in heard.warnings) == warned


def test_the_original_window_is_that_of_the_base(extended: Path, tmp_path: Path) -> None:
    """Extended again, and by a method after which config.json shows the longer window as if pretrained."""
    extend(extended, to=256, out=tmp_path / "again")
    tuned = tune(
        tmp_path / "again", out=tmp_path / "tuned", data=[jsonl(tmp_path / "a.jsonl", [TEXT])], steps=1, recipe="pose"
    )
    assert (tuned.resolved["original_window"], tuned.resolved["positions_to"], tuned.resolved["length"]) == (
        64,
        256,
        64,
    )


def test_direct_on_a_rescaled_rotation_is_no_baseline(extended: Path, tiny_llama: Path, tmp_path: Path) -> None:
    data = [jsonl(tmp_path / "a.jsonl", [TEXT])]
    extend(tiny_llama, to=128, out=tmp_path / "none", method="none")
    for model, warned in ((extended, True), (tmp_path / "none", False)):
        heard = Heard()
        tune(model, out=tmp_path / f"tuned-{warned}", data=data, steps=1, recipe="direct", progress=heard)
        assert any("was not rescaled, and this one was, by pi" in text for text in heard.warnings) == warned


# The record


def test_the_record_tells_recipe_packing_and_texts(extended: Path, tmp_path: Path) -> None:
    data = [jsonl(tmp_path / "a.jsonl", [TEXT])]
    done = tune(extended, out=tmp_path / "a", data=data, steps=1, recipe="mixed", packing="documents")
    told = {"recipe": "mixed", "packing": "documents", "share_in_pieces": 0.5, "piece": 64, "documents_read": 1}
    assert told.items() <= done.resolved.items()
    assert (done.given["recipe"], done.given["packing"]) == ("mixed", "documents")
    assert len(done.resolved["rows_sha256"]) == 64


# Summaries


@pytest.fixture
def reports(tmp_path: Path) -> Path:
    path = tmp_path / "reports.jsonl"
    pairs = [{"report": text, "summary": f"It is {text[:4]}."} for text in different(6, 300)]
    path.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    return path


@pytest.fixture(scope="module")
def long(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A window that holds the frame of the prompt, some 90 tokens, and part of a report."""
    out = tmp_path_factory.mktemp("extended") / "longer"
    extend(tiny_llama, to=256, out=out)
    return out


def test_tuning_on_summaries_takes_its_epochs(long: Path, reports: Path, tmp_path: Path) -> None:
    done = tune(long, out=tmp_path / "out", data=[reports], recipe="summaries")
    assert done.resolved["steps"] == 15 and done.resolved["rows_of_text"] == 6  # 10 times 6 reports, 4 a step
    expected = {text_sha256(text) for text in different(6, 300)}
    assert trained_on(tmp_path / "out") == expected
    shorter = tune(long, out=tmp_path / "short", data=[reports], recipe="summaries", steps=2)
    assert shorter.resolved["steps"] == 2


def test_the_rows_of_summaries_end_with_the_tokenizer_s_end(long: Path, reports: Path) -> None:
    codec = load_codec(open_checkpoint(long))
    rows, _ = training_rows(codec, [reports], recipe("summaries", window=Window(64, 256)), 0)
    assert isinstance(rows, SummaryRows)
    for row in map(rows.row, range(6)):
        targets = row.tokens[row.weights > 0].tolist()
        assert codec.decode(targets[:-1]).strip().startswith("It is 000") and targets[-1] == 1


@pytest.mark.parametrize("data", [["pilot"], ["REPORTS", "pilot"], ["hf:FOLDER"], ["TEXTS"]])
def test_what_holds_no_reports_is_refused(
    long: Path, reports: Path, texts: Path, tmp_path: Path, data: list[str]
) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    names = {"REPORTS": str(reports), "TEXTS": str(texts), "hf:FOLDER": f"hf:{folder}"}
    with pytest.raises(DataError, match=r"no reports with summaries|is not a report with its summary"):
        tune(long, out=tmp_path / "out", data=[names.get(one, one) for one in data], recipe="summaries")


# What was trained on is not measured on


@pytest.fixture(scope="module")
def tuned(extended: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tuned")
    tune(extended, out=folder / "tuned", data=[jsonl(folder / "read.jsonl", different(3, 900))], steps=1)
    return folder / "tuned"


def measured(model: Path, out: Path, data: Path, **options):
    given = {"tasks": ["perplexity"], "lengths": [32], "max_tokens": 200}
    return evaluate(model, out=out, data=[data], **(given | options))


def test_tuning_leaves_the_digests_of_what_it_read(tuned: Path) -> None:
    written = json.loads((tuned / TRAINED_ON).read_text())["documents"]
    assert written == sorted(written) and set(written) <= {text_sha256(text) for text in different(3, 900)}
    assert len(written) == read_run(tuned).resolved["documents_read"]


def test_a_text_that_was_trained_on_is_not_measured_on(tuned: Path, tmp_path: Path) -> None:
    """In another file, of another kind, with other space around it, beside a text that was not read."""
    (tmp_path / "b.txt").write_text("\n" + different(1, 900)[0] + "\n")
    (tmp_path / "a.txt").write_text("unread " + TEXT[:400])
    with pytest.raises(DataError, match=r"was tuned on what it is to be measured on: b\.txt\.\n(.|\n)*--allow-overlap"):
        measured(tuned, tmp_path / "out", tmp_path, max_tokens=None)
    assert not (tmp_path / "out").exists()
    allowed = measured(tuned, tmp_path / "out", tmp_path, max_tokens=None, allow_overlap=True)
    assert allowed.given["allow_overlap"] and allowed.resolved["tuned_on"] == ["b.txt"]
    other = measured(tuned, tmp_path / "other", tmp_path / "a.txt")
    assert other.resolved["tuned_on"] == [] and not other.given["allow_overlap"]


def test_only_texts_that_would_be_scored_count(tuned: Path, tmp_path: Path) -> None:
    data = jsonl(tmp_path / "a.jsonl", ["unread " + TEXT[:400], different(1, 900)[0]])
    assert measured(tuned, tmp_path / "out", data, document_count=1).resolved["tuned_on"] == []


def test_the_list_goes_on_into_what_is_made_of_a_checkpoint(tuned: Path, tmp_path: Path) -> None:
    extend(tuned, to=256, out=tmp_path / "longer")
    tune(tmp_path / "longer", out=tmp_path / "again", data=[jsonl(tmp_path / "new.jsonl", [TEXT[9:3000]])], steps=1)
    ours = trained_on(tmp_path / "again")
    assert trained_on(tuned) < ours and text_sha256(TEXT[9:3000]) in ours
    with pytest.raises(DataError, match="tuned on what it is to be measured on"):
        measured(tmp_path / "again", tmp_path / "out", jsonl(tmp_path / "old.jsonl", different(1, 900)))


def test_reports_that_were_trained_on_are_not_summarized(long: Path, reports: Path, tmp_path: Path) -> None:
    tune(long, out=tmp_path / "tuned", data=[reports], recipe="summaries", steps=1)
    files = tmp_path / "files"
    files.mkdir()
    (files / "gov_report.jsonl").write_text(reports.read_text())
    with pytest.raises(DataError, match=r"measured on: gov_report\.jsonl:1 and 5 more"):
        evaluate(tmp_path / "tuned", out=tmp_path / "out", tasks=["govreport"], task_files=files)


@pytest.mark.parametrize("content", ["{", "[]", '{"version": 2, "documents": []}', '{"version": 1, "documents": [3]}'])
def test_a_broken_list_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / TRAINED_ON).write_text(content)
    with pytest.raises(CheckpointError, match=r"trained_on\.json does not say what the checkpoint was tuned on"):
        trained_on(tmp_path)


def test_nothing_of_the_pilot_s_corpus_is_held_out_and_trained_on() -> None:
    held_out = {text_sha256(module.text) for module in heldout_modules()}
    assert held_out.isdisjoint(map(text_sha256, training_texts(0)))


# The whole way


def test_a_run_on_short_texts_some_of_them_twice(tiny_llama: Path, tmp_path: Path) -> None:
    """Its own split is apart: a text that is there twice is on one side."""
    data = jsonl(tmp_path / "a.jsonl", [*different(40, 60), *different(10, 60)])
    done = run(tiny_llama, to=[128], method=["pi"], steps=1, data=[data], out=tmp_path / "out")
    assert done.status == "done"
    train, held_out = [
        [json.loads(line)["text"] for line in (tmp_path / "out" / "data" / name).read_text().splitlines()]
        for name in ("train.jsonl", "evaluation.jsonl")
    ]
    assert train + held_out == different(40, 60)
    assert read_run(tmp_path / "out" / "pi-128" / "tuned").given["allow_short_documents"]
    assert read_run(tmp_path / "out" / "pi-128" / "evaluation").resolved["tuned_on"] == []


def test_a_run_does_not_split_what_may_have_no_end(tiny_llama: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"hf:org/name cannot be split(.|\n)*all of them are read"):
        run(tiny_llama, to=[128], data=["hf:org/name"], out=tmp_path / "out")
