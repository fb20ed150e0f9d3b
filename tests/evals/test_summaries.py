"""Summaries: prompts exact in tokens, sampling that depends on the document alone, and ROUGE by hand."""

import json
import sys
from pathlib import Path

import pytest
import torch
from transformers import GenerationConfig

from ropewalk.checkpoint.folder import open_checkpoint
from ropewalk.errors import DataError
from ropewalk.evals import summaries
from ropewalk.evals.pieces import Pieces
from ropewalk.evals.summaries import (
    METRICS,
    measured_summaries,
    rouge_scores,
    summary_documents,
    summary_results,
    written,
)
from ropewalk.model.load import LoadedModel, load_model
from ropewalk.text.summaries import (
    HEAD,
    REPORT_TOKENS,
    SUMMARY_TOKENS,
    TAIL,
    Room,
    SummaryDocument,
    summary_prompt,
    summary_room,
)
from tests.conftest import make_llama

REPORT = "The agency spent 40 dollars on täxis in 1999. It had not planned to. "
PAIRS = [
    (REPORT * 20, "It spent 40 dollars.\nNot planned."),
    (REPORT, "Täxis cost much."),
    (REPORT * 3, "A plan failed."),
]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Path) -> LoadedModel:
    """A random Llama whose window holds the prompt's frame, some 90 tokens, and part of a report."""
    return load_model(
        open_checkpoint(make_llama(tmp_path_factory.mktemp("models") / "llama", tiny_tokenizer, window=256))
    )


@pytest.fixture
def reports(tmp_path: Path) -> Path:
    return jsonl(tmp_path / "reports.jsonl", [{"report": r, "summary": s} for r, s in PAIRS])


def jsonl(path: Path, entries: list) -> Path:
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return path


def measured(loaded: LoadedModel, files: Path, folder: Path, **given) -> list:
    return measured_summaries(loaded, files, pieces=Pieces(folder / "pieces.jsonl"), max_new_tokens=8, **given)


def texts(folder: Path) -> list[str]:
    return [json.loads(line)["result"]["text"] for line in (folder / "pieces.jsonl").read_text().splitlines()]


# The prompt


class Bytes:
    """One token a byte and a BOS, so that lengths can be told by eye."""

    bos = (256,)

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def document(self, text: str) -> list[int]:
        return [*self.bos, *self.encode(text)]


FRAME = 1 + len(HEAD) + len(TAIL)


def test_the_prompt_is_that_of_figure_4() -> None:
    tokens, cut_by = summary_prompt(Bytes(), "Some report.", Room(500, 300, 100))  # type: ignore[arg-type]
    assert (tokens[0], cut_by) == (256, "nothing")
    assert bytes(tokens[1:]).decode() == (
        "Read the following article and then summarize it.\nSome report.\nNow summarize the above article.\nSummary:"
    )


def test_the_papers_window_cuts_reports_to_the_papers_tokens_and_no_further() -> None:
    room = summary_room(Bytes(), 16_384)  # type: ignore[arg-type]
    assert room == Room(16_384, REPORT_TOKENS, SUMMARY_TOKENS) == (16_384, 15_000, 1_000)
    for size, kept, cut_by in ((14_999, 14_999, "nothing"), (15_000, 15_000, "nothing"), (15_001, 15_000, "protocol")):
        tokens, by = summary_prompt(Bytes(), "x" * size, room)  # type: ignore[arg-type]
        assert (len(tokens), by) == (FRAME + kept, cut_by)


def test_a_smaller_window_cuts_the_report_and_never_the_frame() -> None:
    room = summary_room(Bytes(), 2048)  # type: ignore[arg-type]
    assert room == (2048, 1048 - FRAME, 1000)
    tokens, cut_by = summary_prompt(Bytes(), "x" * 20_000, room)  # type: ignore[arg-type]
    assert len(tokens) + room.summary == 2048 and cut_by == "window"
    assert bytes(tokens[1:]).decode().endswith("xx" + TAIL)
    assert summary_room(Bytes(), 512) == (512, 256 - FRAME, 256)  # type: ignore[arg-type]


def test_no_character_is_halved() -> None:
    tokens, _ = summary_prompt(Bytes(), "ä" * 50, Room(FRAME + 17, 7, 10))  # type: ignore[arg-type]
    assert bytes(tokens[1:]).decode() == HEAD + "äää" + TAIL  # seven tokens hold three and a half


def test_tokens_at_the_seams_are_paid_by_the_report() -> None:
    class Seams(Bytes):  # as SentencePiece: what is one text has other tokens than its parts
        def document(self, text: str) -> list[int]:
            return [*super().document(text), *([0] * 3 if len(text) > len(HEAD + TAIL) else [])]

    room = summary_room(Seams(), 400, 100)  # type: ignore[arg-type]
    tokens, cut_by = summary_prompt(Seams(), "x" * 400, room)  # type: ignore[arg-type]
    assert len(tokens) == 300 and cut_by == "window"


def test_on_a_real_tokenizer_the_prompt_is_its_text_in_tokens(loaded: LoadedModel) -> None:
    room = summary_room(loaded.codec, loaded.window, 20)
    for report, _ in PAIRS:
        tokens, cut_by = summary_prompt(loaded.codec, report, room)
        text = loaded.codec.decode(tokens[1:])
        inside = text.removeprefix(HEAD).removesuffix(TAIL)
        assert text == HEAD + inside + TAIL and report.startswith(inside)
        assert tokens == loaded.codec.document(text) and tokens[:1] == loaded.codec.bos
        assert len(tokens) <= loaded.window - 20 and len(loaded.codec.encode(inside)) <= room.report
        assert (inside == report) == (cut_by == "nothing")
        assert cut_by == "nothing" or len(tokens) >= loaded.window - 20 - 4  # the next word would not have fitted


def test_a_window_without_room_for_a_report_is_refused(tiny_llama: Path, reports: Path, tmp_path: Path) -> None:
    small = load_model(open_checkpoint(tiny_llama))
    with pytest.raises(
        DataError, match=r"window of 64 tokens has no room(.|\n)*takes \d+, the summary 8;(.|\n)*Extend"
    ):
        measured(small, reports, tmp_path)


# ROUGE


def test_rouge_by_hand() -> None:
    """8 words against 6. Shared words: the, cat, sat, on, the. Shared pairs: the cat, cat sat, on the."""
    scores = rouge_scores("the cat sat on the mat", "the cat sat quietly on the old rug")
    precision, recall = 5 / 6, 5 / 8
    assert scores["rouge1"] == pytest.approx(2 * precision * recall / (precision + recall))
    precision, recall = 3 / 5, 3 / 7
    assert scores["rouge2"] == pytest.approx(2 * precision * recall / (precision + recall))
    assert scores["rougeL"] == scores["rouge1"]  # the shared words stand in one order


def test_rouge_l_wants_order_and_lsum_only_within_sentences() -> None:
    """Two sentences exchanged: in one sequence only one of them lies in order; sentence by sentence both do."""
    scores = rouge_scores("Cats sleep well. Dogs run fast.", "Dogs run fast. Cats sleep well.")
    assert scores == {"rouge1": 1.0, "rouge2": pytest.approx(4 / 5), "rougeL": 0.5, "rougeLsum": 1.0}
    assert rouge_scores("cats sleep well\ndogs run fast", "dogs run fast\ncats sleep well")["rougeLsum"] == 1.0


def test_words_are_not_stemmed_and_case_does_not_count() -> None:
    assert rouge_scores("Report", "report")["rouge1"] == 1.0
    assert rouge_scores("reporting", "reported")["rouge1"] == 0.0


def answering(answers: list[list[int]]):
    """A `generate` that writes these ids, one list a call."""
    left = iter(answers)
    return lambda tokens_BL, **_: torch.cat([tokens_BL, torch.tensor([next(left)], dtype=tokens_BL.dtype)], dim=1)


def test_an_oracle_scores_100_and_silence_0(
    loaded: LoadedModel, reports: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value, out in (
        ("oracle", 100.0, [loaded.codec.encode(f" {s}") for _, s in PAIRS]),
        ("mute", 0.0, [[]] * 3),
    ):
        monkeypatch.setattr(loaded.model, "generate", answering([[0, *ids, 1] for ids in out]))
        (tmp_path / name).mkdir()
        rows = measured(loaded, reports, tmp_path / name)
        assert [(row.name, row.metric) for row in rows] == [("govreport", metric) for metric in METRICS]
        assert {row.value for row in rows} == {value} and {row.stderr for row in rows} == {0.0}
        assert {row.count for row in rows} == {3} and all(row.higher_is_better for row in rows)
        details = rows[0].details
        assert details["empty_summaries"] == (3 if value == 0 else 0) and details["ended_by_themselves"] == 3
        assert details["mean_tokens_out"] == sum(map(len, out)) / 3 + 1  # the BOS it wrote is a token and no word


# Rows


def piece(score: float, *, cut_by: str = "nothing", tokens_in: int = 500) -> dict:
    scores = dict.fromkeys(METRICS, score)
    return {"text": "a", "tokens_in": tokens_in, "tokens_out": 10, "ended": True, "cut_by": cut_by, "scores": scores}


PAPER = {"sampler": "paper", "seed": 0, "data": "here"}


def test_rows_hold_mean_and_error_over_documents_in_percent() -> None:
    rows = summary_results([piece(0.1), piece(0.2, tokens_in=700), piece(0.6)], Room(16_384, 15_000, 1_000), PAPER)
    assert [row.value for row in rows] == [pytest.approx(30)] * 4
    assert rows[0].stderr == pytest.approx((((20**2 + 10**2 + 30**2) / 2) / 3) ** 0.5)
    assert rows[0].length == 700 and rows[0].count == 3


def test_one_document_has_no_error_and_says_why() -> None:
    (row, *_) = summary_results([piece(0.5)], Room(16_384, 15_000, 1_000), PAPER)
    assert row.stderr is None and "one document" in row.details["stderr_reason"]


def test_rows_say_what_makes_them_differ_from_the_paper() -> None:
    def reasons(room: Room, cut_by: str, count: int, sampler: str) -> list[str]:
        rows = summary_results([piece(0.5, cut_by=cut_by)] * count, room, PAPER | {"sampler": sampler})
        details = rows[0].details
        assert details["comparable_with_paper"] == (not details["differs_from_paper"])
        assert details[f"reports_cut_by_{cut_by}"] == count
        return details["differs_from_paper"]

    assert reasons(Room(16_384, 15_000, 1_000), "protocol", 972, "paper") == []
    assert reasons(Room(2048, 1000, 1_000), "window", 972, "paper") == ["reports are cut to 1000 tokens, not 15000"]
    assert reasons(Room(512, 200, 256), "window", 2, "greedy") == [
        "reports are cut to 200 tokens, not 15000",
        "summaries are cut to 256 tokens, not 1000",
        "decoding is greedy",
        "documents: 2, not 972",
    ]


# Sampling


def test_a_text_depends_on_seed_and_document_alone(loaded: LoadedModel, reports: Path, tmp_path: Path) -> None:
    """Neither on what was drawn before it, nor on how many documents there are, nor on a pause."""
    for name in ("whole", "other", "resumed", "greedy"):
        (tmp_path / name).mkdir()
    torch.manual_seed(11)
    rows = measured(loaded, reports, tmp_path / "whole")
    drawn = torch.rand(1)
    torch.manual_seed(11)
    assert torch.rand(1) == drawn  # the caller's own random numbers are left alone
    assert measured(loaded, reports, tmp_path / "other", seed=1) != rows
    assert texts(tmp_path / "other") != texts(tmp_path / "whole")
    assert all(a != b for a, b in zip(texts(tmp_path / "other"), texts(tmp_path / "whole"), strict=True))
    measured(loaded, reports, tmp_path / "resumed", limit=1)
    assert measured(loaded, reports, tmp_path / "resumed") == rows
    assert (tmp_path / "resumed/pieces.jsonl").read_bytes() == (tmp_path / "whole/pieces.jsonl").read_bytes()
    assert measured(loaded, reports, tmp_path / "greedy", sampler="greedy") != rows


def test_pieces_that_are_there_are_not_written_again(
    loaded: LoadedModel, reports: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = measured(loaded, reports, tmp_path)
    monkeypatch.setattr(loaded.model, "generate", answering([]))
    assert measured(loaded, reports, tmp_path) == rows


def test_greedy_takes_the_likeliest_and_sampling_draws_as_the_paper_says(loaded: LoadedModel) -> None:
    """Checked against logits: greedy ids are argmaxes; sampled ids lie in the nucleus of the logits divided by 0.5."""
    prompt = loaded.codec.document("The agency")

    def logits_LV(ids: list[int]) -> torch.Tensor:
        with torch.no_grad():
            return loaded.model(torch.tensor([[*prompt, *ids]])).logits[0, len(prompt) - 1 : -1]

    ids, _ = written(loaded, prompt, 6, "greedy", "0/0")
    assert ids and ids == logits_LV(ids).argmax(-1).tolist()
    seen: set[int] = set()
    for number in range(120):
        ids, ended = written(loaded, prompt, 1, "paper", f"0/{number}")
        seen.add(1 if ended else ids[0])
    odds_V, order_V = (logits_LV([0])[0] / 0.5).softmax(-1).sort(descending=True)
    nucleus = set(order_V[: int((odds_V.cumsum(0) < 0.95).sum()) + 1].tolist())
    assert len(nucleus) > 60 and seen <= nucleus
    assert not seen <= set(order_V[:50].tolist())  # transformers' own default would keep these fifty


def test_the_checkpoints_own_sampling_is_ignored_and_left_as_it_was(loaded: LoadedModel) -> None:
    prompt = loaded.codec.document("The agency")
    plain = {name: written(loaded, prompt, 8, name, "0/0") for name in ("paper", "greedy")}
    before = loaded.model.generation_config
    own = GenerationConfig(
        do_sample=True, top_k=1, top_p=0.1, temperature=2.0, repetition_penalty=5.0, min_new_tokens=20, max_length=3,
        suppress_tokens=list(range(2, 200)), eos_token_id=1,
    )  # fmt: skip
    loaded.model.generation_config = own
    try:
        assert {name: written(loaded, prompt, 8, name, "0/0") for name in plain} == plain
        assert loaded.model.generation_config is own
    finally:
        loaded.model.generation_config = before


@pytest.mark.parametrize("ends", [7, [9, 7]])
def test_any_end_token_of_the_checkpoint_ends_a_summary(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch, ends: int | list[int]
) -> None:
    monkeypatch.setattr(loaded.model, "generation_config", GenerationConfig(eos_token_id=ends))
    monkeypatch.setattr(loaded.model, "generate", answering([[5, 6, 7], [5, 6, 8]]))
    assert written(loaded, [0, 2], 3, "paper", "0/0") == ([5, 6], True)
    assert written(loaded, [0, 2], 3, "paper", "0/0") == ([5, 6, 8], False)


def test_unknown_sampler(loaded: LoadedModel, reports: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"unknown sampler 'gredy'\. Did you mean 'greedy'"):
        measured(loaded, reports, tmp_path, sampler="gredy")


# The data


@pytest.mark.parametrize(
    "entry",
    [
        {"report": "R", "summary": "S"},
        {"id": "1", "pid": "1_0", "input": "R", "output": "S"},
        {"instructions": ["Please summarize."], "input": "R", "outputs": ["S"], "source": "x", "evaluation": "rouge"},
    ],
)
def test_the_usual_schemas(tmp_path: Path, entry: dict) -> None:
    file = jsonl(tmp_path / "a.jsonl", [entry, entry])
    file.write_text(file.read_text().replace("\n", "\n\n", 1))  # empty lines are counted and skipped
    assert summary_documents(file) == [("a.jsonl:1", "R", "S"), ("a.jsonl:3", "R", "S")]
    assert summary_documents(file, 1) == [SummaryDocument("a.jsonl:1", "R", "S")]


def test_entries_without_a_text_are_skipped(tmp_path: Path) -> None:
    file = jsonl(tmp_path / "a.jsonl", [{"report": " ", "summary": "S"}, {"report": "R", "summary": "S"}])
    assert [document.name for document in summary_documents(file, 1)] == ["a.jsonl:2"]


BAD = ["{", "3", "[]", '"report"', '{"text": "x"}', '{"report": "R"}', '{"report": 1, "summary": "S"}', "[" * 100_000,
       '{"input": "R", "outputs": ["S", "T"]}', '{"report": "\\ud800", "summary": "S"}']  # fmt: skip


@pytest.mark.parametrize("line", BAD, ids=lambda line: line[:30])
def test_a_bad_line_is_named(tmp_path: Path, line: str) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"report": "R", "summary": "S"}\n' + line + "\n")
    with pytest.raises(DataError, match=r"line 2 of .*a\.jsonl is not a report(.|\n)*Expected(.|\n)*Correct the line"):
        summary_documents(file)


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "latin.jsonl").write_bytes(b'{"report": "\xe4"}')
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    (tmp_path / "empty.jsonl").write_text("\n")
    for name in ("missing.jsonl", "missing.parquet", "latin.jsonl", "broken.parquet"):
        with pytest.raises(DataError, match=r"cannot be read(.|\n)*UTF-8 jsonl or parquet"):
            summary_documents(tmp_path / name)
    with pytest.raises(DataError, match="no report with a summary"):
        summary_documents(tmp_path / "empty.jsonl")
    with pytest.raises(DataError, match="0 documents give no mean"):
        summary_documents(tmp_path / "empty.jsonl", 0)


def test_the_hubs_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    file = tmp_path / "validation.parquet"
    parquet.write_table(arrow.table({"report": ["R", "Q"], "summary": ["S", "T"]}), file)
    asked = {}

    def download(repo: str, name: str, **more: str) -> str:
        asked.update(more, repo=repo, name=name)
        return str(file)

    monkeypatch.setattr(summaries, "hf_hub_download", download)
    assert summary_documents(None) == [("validation.parquet:1", "R", "S"), ("validation.parquet:2", "Q", "T")]
    assert asked["repo_type"] == "dataset" and len(asked["revision"]) == 40 and "validation" in asked["name"]


def test_without_a_network_the_message_asks_for_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real client, told to be offline, with an empty cache."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        DataError, match=r"GovReport cannot be had(.|\n)*network(.|\n)*Give a folder with gov_report\.jsonl"
    ):
        summary_documents(None)


@pytest.mark.parametrize(("package", "extra"), [("rouge_score.rouge_scorer", "evals"), ("pyarrow.parquet", "data")])
def test_a_package_that_is_missing_is_named(
    loaded: LoadedModel, reports: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    file = reports if package.startswith("rouge") else reports.rename(reports.with_suffix(".parquet"))
    with pytest.raises(DataError, match=rf"need {package}(.|\n)*pip install 'ropewalk\[{extra}\]'"):
        measured(loaded, file, tmp_path)
    assert not (tmp_path / "pieces.jsonl").exists()
