"""Short tasks: lm_eval's prompts from local lines, its own figures, known accuracies, and what counts as a drop."""

import json
import math
import statistics
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ropewalk.checkpoint.folder import open_checkpoint
from ropewalk.errors import DataError
from ropewalk.evals import short_tasks, task_files
from ropewalk.evals.changes import changes, failed_gate, mcnemar, paired_interval
from ropewalk.evals.engine import EngineLM
from ropewalk.evals.passkey import wilson_interval
from ropewalk.evals.pieces import Pieces
from ropewalk.evals.short_tasks import built_tasks, measured_short_tasks
from ropewalk.model.load import LoadedModel, load_model
from ropewalk.model.scoring import Scored, Scorer
from ropewalk.progress import Progress, silent
from ropewalk.record import EvalResult
from tests.conftest import make_llama

NAMES = ("boolq", "piqa", "race-middle", "race-high", "winogrande")
ARTICLE = "The fox, being quick, jumps over the dog. The dog is lazy and does not jump. "
LINES = {
    "boolq": [
        {"query": "Passage: Foxes jump.\nQuestion: do foxes jump?", "choices": ["no", "yes"], "gold": 1},
        {"query": "Dogs are lazy.\nQuestion: do dogs jump\nAnswer:", "choices": ["no", "yes"], "gold": 0},
        {"query": "Passage: Foxes.\nQuestion: a riddle.\nQuestion: do foxes sleep?", "choices": ["yes", "no"], "gold": 0},
    ],
    "piqa": [
        {"query": "Question: How to jump?\n", "choices": ["Over the lazy dog.", "Under it, quick."], "gold": 0},
        {"query": "Question: ice box\nAnswer:", "choices": [" water the box", " a box of soda"], "gold": 1},
        {"query": "Make a pillow.", "choices": ["Blow into a can.", "Blow into a bag."], "gold": 1},
    ],
    "winogrande": [
        {"context_options": ["The fox saw the dog and the fox", "The fox saw the dog and the dog"],
         "continuation": "jumps over it.", "gold": 0},
        {"context_options": ["A dog sleeps as a dog", "A dog sleeps as a fox"], "continuation": "does.", "gold": 1},
    ],
    "race-middle": [
        {"article": ARTICLE, "question": "Who jumps?", "options": ["A fox", "A dog", "A cow", "A cat"], "answer": "A"},
        {"article": "Another one.", "question": "It is  _  .", "options": ["one", "two", "six", "ten"], "answer": "C"},
        {"article": ARTICLE, "question": "The dog is", "options": ["quick", "lazy", "brown", "old"], "answer": "B"},
    ],
    "race-high": [
        {"article": ARTICLE, "questions": ["The fox is  _  .", "Who is lazy?"],
         "options": [["quick", "slow", "red", "old"], ["A fox", "A dog", "A cow", "Nobody at all"]],
         "answers": ["A", "B"], "id": "high1.txt"},
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file for each task, in the schemas that they are found in."""
    folder = tmp_path_factory.mktemp("tasks")
    for name, rows in LINES.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Path) -> LoadedModel:
    """A random Llama with a window of 1024 tokens, in which every prompt fits."""
    return load_model(open_checkpoint(make_llama(tmp_path_factory.mktemp("wide") / "m", tiny_tokenizer, window=1024)))


class Words(Progress):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def measured(
    loaded: LoadedModel, folder: Path | None, out: Path, *, tasks=NAMES, scorer=None, limit=None, progress=silent
):
    pieces = Pieces(out / "pieces.jsonl")
    scorer = scorer or Scorer(loaded.model)
    made = built_tasks(tasks, files=folder, checkpoint=loaded.checkpoint, seed=0, progress=progress)
    return measured_short_tasks(loaded, scorer, made, limit=limit, seed=0, pieces=pieces, progress=progress)


def built(folder: Path | None, *names: str, **given):
    with short_tasks.quietly(0):
        tasks = task_files.named_tasks(names, files=folder, checkpoint=Path("."), window=1024, seed=0, **given)
        for named in tasks:
            named.task.set_config("num_fewshot", 0)
            named.task.build_all_requests()
    return tasks


def requests(folder: Path | None, name: str) -> list[tuple[str, str]]:
    return [instance.args for instance in built(folder, name)[0].task.instances]


def test_local_lines_become_lm_evals_prompts(folder: Path) -> None:
    """As its templates for the hub's data would write them, each word once."""
    assert requests(folder, "boolq") == [
        (text, choice)
        for text in (
            "Foxes jump.\nQuestion: do foxes jump?\nAnswer:",
            "Dogs are lazy.\nQuestion: do dogs jump?\nAnswer:",
            "Foxes.\nQuestion: a riddle.\nQuestion: do foxes sleep?\nAnswer:",
        )
        for choice in (" no", " yes")
    ]
    assert requests(folder, "piqa") == [
        ("Question: How to jump?\nAnswer:", " Over the lazy dog."),
        ("Question: How to jump?\nAnswer:", " Under it, quick."),
        ("Question: ice box\nAnswer:", " water the box"),
        ("Question: ice box\nAnswer:", " a box of soda"),
        ("Question: Make a pillow.\nAnswer:", " Blow into a can."),
        ("Question: Make a pillow.\nAnswer:", " Blow into a bag."),
    ]
    assert requests(folder, "winogrande") == [
        ("The fox saw the dog and the fox", " jumps over it."),
        ("The fox saw the dog and the dog", " jumps over it."),
        ("A dog sleeps as a dog", " does."),
        ("A dog sleeps as a fox", " does."),
    ]


def test_race_asks_the_last_question_of_an_article_after_those_before_it(folder: Path) -> None:
    middle = f"Article: {ARTICLE}\n\nQuestion: Who jumps?\nAnswer: A fox\nThe dog is"
    assert requests(folder, "race-middle") == [
        *[(middle, f" {choice}") for choice in ("quick", "lazy", "brown", "old")],
        *[("Article: Another one.\n\nIt is  _  .", f" {choice}") for choice in ("one", "two", "six", "ten")],
    ]
    cloze = f"Article: {ARTICLE}\n\nThe fox is quick\nWho is lazy?"
    assert {context for context, _ in requests(folder, "race-high")} == {cloze}


def test_the_two_schemas_of_race_are_one(folder: Path, tmp_path: Path) -> None:
    (row,) = LINES["race-high"]
    parts = zip(row["questions"], row["options"], row["answers"], strict=True)
    (tmp_path / "race-high.jsonl").write_text(
        "\n".join(
            json.dumps({"article": ARTICLE, "question": q, "options": options, "answer": a}) for q, options, a in parts
        )
    )
    assert requests(tmp_path, "race-high") == requests(folder, "race-high")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch):
    """The hub's data in its own schemas: the items of the local files."""
    import datasets

    tables = {
        ("aps/super_glue", "boolq"): [
            {"passage": "Foxes jump.", "question": "do foxes jump", "label": 1, "idx": 0},
            {"passage": "Dogs are lazy.", "question": "do dogs jump", "label": 0, "idx": 1},
            {"passage": "Foxes.\nQuestion: a riddle.", "question": "do foxes sleep", "label": 1, "idx": 2},
        ],
        ("ehovy/race", "middle"): [{"example_id": "middle1.txt", **row} for row in LINES["race-middle"]],
    }  # fmt: skip

    def load_dataset(path: str, name: str | None = None, split: str | None = None, **_):
        if (path, name) not in tables:
            raise ConnectionError(f"cannot reach {path}")
        rows = datasets.Dataset.from_list(tables[path, name])
        return rows if split else {"train": rows, "validation": rows}

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)


@pytest.mark.parametrize("name", ["boolq", "race-middle"])
def test_items_of_the_hub_and_of_a_file_are_the_same(
    hub: None, loaded: LoadedModel, folder: Path, tmp_path: Path, name: str
) -> None:
    (far,) = measured(loaded, None, tmp_path, tasks=[name])
    (near,) = measured(loaded, folder, tmp_path, tasks=[name])
    assert far.details["items_sha256"] == near.details["items_sha256"]
    assert (far.value, far.details["items"]) == (near.value, near.details["items"])
    assert "hub" in far.details["data"] and near.details["data"]["file"] == str(folder / f"{name}.jsonl")
    assert changes([far], [near])[0].value == 0


def test_without_files_and_without_a_network_it_says_what_to_do(hub: None, loaded: LoadedModel, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"items of piqa cannot be had.*baber/piqa(.|\n)*holds piqa\.jsonl"):
        measured(loaded, None, tmp_path, tasks=["piqa"])


def hflm(loaded: LoadedModel, **given):
    from lm_eval.models.huggingface import HFLM

    with short_tasks.quietly(0):
        return HFLM(pretrained=loaded.model, tokenizer=loaded.codec.tokenizer, max_length=loaded.window, **given)


def narrow(loaded: LoadedModel, window: int) -> LoadedModel:
    """The same model, taken to have a shorter window, so that prompts are cut."""
    rope = loaded.checkpoint.rope
    short = replace(rope, window=replace(rope.window, original=window, target=window))
    view = SimpleNamespace(rope=short, window=short.window, folder=loaded.checkpoint.folder)
    return replace(loaded, checkpoint=view)  # type: ignore[arg-type]


@pytest.mark.parametrize("window", [1024, 40])
@pytest.mark.parametrize("batch", [1, 3])
def test_loglikelihoods_are_those_of_hflm(loaded: LoadedModel, folder: Path, window: int, batch: int) -> None:
    """To 1e-4 nats, both float32: sums of up to 20 losses of about 6, each to 1e-6 of itself."""
    loaded = narrow(loaded, window)
    theirs, ours = hflm(loaded, batch_size=batch), EngineLM(loaded)
    asked = [instance for named in built(folder, *NAMES) for instance in named.task.instances]
    empty = SimpleNamespace(args=("", " quick brown"))
    spaces = SimpleNamespace(args=("The quick  ", "brown fox"))
    marked = SimpleNamespace(args=("<s>The quick", " brown"))
    asked += [empty, spaces, marked]
    with short_tasks.quietly(0):
        wanted = theirs.loglikelihood(asked, disable_tqdm=True)
    found = ours.loglikelihood(asked)
    assert [greedy for _, greedy in found] == [greedy for _, greedy in wanted]
    assert [value for value, _ in found] == pytest.approx([value for value, _ in wanted], abs=1e-4)
    longer = sum(
        len(c) + len(t) > window + 1 for c, t in (ours._encode_pair(*one.args) for one in asked if one.args[0])
    )
    assert ours.truncated == longer and (longer > 0) == (window == 40)


def test_a_choice_that_greedy_decoding_would_write_is_called_greedy(loaded: LoadedModel) -> None:
    """Random text is never greedy, so the case is made: what the model itself writes."""
    engine, codec = EngineLM(loaded), loaded.codec
    context = codec.document("The quick brown fox")
    tokens = torch.tensor([context])
    written = loaded.model.generate(
        tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=3, do_sample=False, pad_token_id=1
    )
    answer = written[0, len(context) :].tolist()
    right, wrong = engine._loglikelihood_tokens([(None, context, answer), (None, context, [*answer[:2], 7])])
    assert right[1] and not wrong[1]


@pytest.mark.parametrize("window", [1024, 40])
def test_rolling_loglikelihoods_are_those_of_hflm(loaded: LoadedModel, window: int) -> None:
    loaded = narrow(loaded, window)
    texts = [SimpleNamespace(args=(ARTICLE * n,)) for n in (1, 3)]
    with short_tasks.quietly(0):
        wanted = hflm(loaded, batch_size=2).loglikelihood_rolling(texts, disable_tqdm=True)
    assert EngineLM(loaded).loglikelihood_rolling(texts) == pytest.approx(
        wanted, rel=1e-5
    )  # hundreds of float32 losses


@pytest.mark.parametrize("window", [1024, 40])
def test_generated_text_is_that_of_hflm(loaded: LoadedModel, window: int) -> None:
    loaded = narrow(loaded, window)
    free = EngineLM(loaded).generate_until([SimpleNamespace(args=(ARTICLE, {"until": [], "max_gen_toks": 16}))])[0]
    asked = [
        SimpleNamespace(args=(ARTICLE, {"until": until, "max_gen_toks": 16, "do_sample": False, "temperature": 0.0}))
        for until in ([], [free[3:5]], ["\n\n"])
    ]
    found = EngineLM(loaded).generate_until(asked)
    assert found[1] == free.split(free[3:5])[0] != free
    with short_tasks.quietly(0):
        assert found == hflm(loaded, batch_size=1).generate_until(asked, disable_tqdm=True)


class Oracle:
    """Finds the choices of `right` likely and all others unlikely, whatever stands before them."""

    def __init__(self, loaded: LoadedModel, right: list[str]):
        self.decode, self.right, self.asked = loaded.codec.decode, right, 0

    def prompts(self, prompts, scored) -> list[Scored]:
        self.asked += len(prompts)
        texts = [self.decode(tokens) for tokens in prompts]
        losses = [0.1 if text.endswith(tuple(self.right)) else 5.0 for text in texts]
        return [
            Scored(torch.full((count,), loss), torch.zeros(count, dtype=torch.bool))
            for count, loss in zip(scored, losses, strict=True)
        ]


def test_an_oracle_has_the_accuracy_that_was_made(loaded: LoadedModel, folder: Path, tmp_path: Path) -> None:
    right = ["jump?\nAnswer: yes", "do dogs jump?\nAnswer: no", "sleep?\nAnswer: no",  # the third is wrong
             "How to jump?\nAnswer: Over the lazy dog.", "soda", "can.",  # the third is wrong
             "dog is lazy", "six", "Who is lazy? A fox", "the fox jumps over it.", "a dog does."]  # fmt: skip
    rows = measured(loaded, folder, tmp_path, scorer=Oracle(loaded, right))
    found = {(row.name, row.metric): row for row in rows}
    assert {key: row.details["items"] for key, row in found.items() if key[1] == "accuracy"} == {
        ("boolq", "accuracy"): "110", ("piqa", "accuracy"): "110", ("race-middle", "accuracy"): "11",
        ("race-high", "accuracy"): "0", ("winogrande", "accuracy"): "10",
    }  # fmt: skip
    assert [row.name for row in rows if row.metric == "accuracy_norm"] == ["piqa"]
    boolq = found["boolq", "accuracy"]
    assert (boolq.value, boolq.count, boolq.length) == (pytest.approx(2 / 3), 3, 1024)
    assert boolq.stderr == pytest.approx(math.sqrt(2 / 3 * (1 / 3) / 3))
    assert boolq.details["interval_95"] == list(wilson_interval(2, 3))
    assert "lm_eval" in boolq.protocol and "boolq 2.0, zero-shot" in boolq.protocol
    assert boolq.details["truncated"] == 0
    longest = max(len(loaded.codec.document(c + t)) for c, t in requests(folder, "boolq"))
    assert boolq.details["longest_prompt"] == longest


def test_the_accuracy_is_lm_evals_own(loaded: LoadedModel, folder: Path, tmp_path: Path) -> None:
    import lm_eval

    rows = measured(loaded, folder, tmp_path, limit=2)
    theirs = hflm(loaded, batch_size=1)
    for named in built(folder, *NAMES):
        with short_tasks.quietly(0):
            judged = lm_eval.evaluate(theirs, {"tasks": {named.name: named.task}}, limit=2, bootstrap_iters=0)
        wanted = judged["results"][named.name]
        for row in (row for row in rows if row.name == named.name):
            assert row.value == wanted[{"accuracy": "acc,none", "accuracy_norm": "acc_norm,none"}[row.metric]]
            assert row.count <= 2


def test_a_killed_run_goes_on_and_leaves_the_same_bytes(
    loaded: LoadedModel, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(short_tasks, "CHUNK_ITEMS", 1)

    class Killed(Scorer):
        left, asked = 5, 0

        def prompts(self, prompts, scored):
            if self.left == 0:
                raise KeyboardInterrupt
            self.left, self.asked = self.left - 1, self.asked + len(prompts)
            return super().prompts(prompts, scored)

    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    wanted = measured(loaded, folder, whole)
    first, second = Killed(loaded.model), Killed(loaded.model)
    with pytest.raises(KeyboardInterrupt):
        measured(loaded, folder, parts, scorer=first)
    second.left = 100
    assert measured(loaded, folder, parts, scorer=second) == wanted
    assert first.asked + second.asked == sum(len(requests(folder, name)) for name in NAMES)
    assert (parts / "pieces.jsonl").read_bytes() == (whole / "pieces.jsonl").read_bytes()


def test_prompts_beyond_the_window_are_counted_and_told(loaded: LoadedModel, folder: Path, tmp_path: Path) -> None:
    words = Words()
    (row,) = measured(narrow(loaded, 40), folder, tmp_path, tasks=["race-high"], progress=words)
    assert row.details["truncated"] == 4 and row.length == 40 < row.details["longest_prompt"]
    assert len(words.warnings) == 1 and "4 of 4 prompts of race-high" in words.warnings[0]


@pytest.fixture
def words(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What every task of RULER imports and `ruler_fwe` does not use: a list of words, and data of nltk."""
    import nltk

    kinds = {"nouns": ["fox"], "adjectives": ["quick"], "verbs": ["jump"]}
    stub = SimpleNamespace(RandomWord=lambda: SimpleNamespace(_categories=kinds))
    monkeypatch.setitem(sys.modules, "wonderwords", stub)  # type: ignore[arg-type]
    monkeypatch.setattr(nltk.data, "find", lambda name: None)
    yield
    for name in [name for name in sys.modules if name.startswith("lm_eval.tasks.ruler")]:
        del sys.modules[name]


def test_rulers_tasks_can_be_chosen(words: None, loaded: LoadedModel, tmp_path: Path) -> None:
    runs = []
    for seed in (0, 0, 1):
        pieces = Pieces(tmp_path / f"{len(runs)}.jsonl")
        made = built_tasks(["ruler_fwe"], files=None, checkpoint=loaded.checkpoint, seed=seed, progress=silent)
        runs += measured_short_tasks(
            loaded, Scorer(loaded.model), made, limit=2, seed=seed, pieces=pieces, progress=silent
        )
    row, again, other = runs
    assert row == again  # what it draws, it draws from the seed
    assert row.details["items_sha256"] != other.details["items_sha256"]
    assert (row.name, row.metric, row.length, row.count) == ("ruler_fwe", "score", 1024, 2)
    assert row.details["data"]["made_by"].startswith("lm_eval") and 0 <= row.value <= 1
    assert "items" not in row.details  # shares of words found, not right or wrong


def test_long_tasks_that_cannot_be_had_say_why(
    loaded: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("jieba", "fuzzywuzzy", "rouge", "wonderwords"):
        monkeypatch.setitem(sys.modules, name, None)  # as if not installed
    for name in ("longbench_gov_report", "niah_single_1"):
        with pytest.raises(DataError, match=rf"cannot make {name}: ImportError(.|\n)*pip install 'lm_eval\["):
            measured(loaded, None, tmp_path, tasks=[name])
    with pytest.raises(DataError, match="needs a window of 1024 tokens, and the model's is 40"):
        measured(narrow(loaded, 40), None, tmp_path, tasks=["ruler"])


def test_ruler_does_not_run_the_models_code(loaded: LoadedModel, tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text('{"auto_map": {"AutoTokenizer": ["code.Tokenizer", null]}}')
    with pytest.raises(DataError, match="auto_map"):
        task_files.named_tasks(["ruler_fwe"], files=None, checkpoint=tmp_path, window=1024, seed=0)


def row(items: str, *, name: str = "boolq", digest: str = "a", metric: str = "accuracy") -> EvalResult:
    return EvalResult(
        name=name, protocol="lm_eval", length=64, metric=metric, value=items.count("1") / len(items), stderr=None,
        count=len(items), higher_is_better=True, details={"items": items, "items_sha256": digest, "truncated": 0},
    )  # fmt: skip


@given(st.lists(st.tuples(st.sampled_from("01"), st.sampled_from("01")), min_size=2, max_size=60))
def test_a_change_is_the_mean_of_the_items_differences_with_their_own_error(pairs: list[tuple[str, str]]) -> None:
    was, now = ("".join(column) for column in zip(*pairs, strict=True))
    (change,) = changes([row(was), row(was, metric="accuracy_norm")], [row(now)])
    differences = [int(b) - int(a) for a, b in pairs]
    assert change.value == pytest.approx(100 * statistics.mean(differences))
    assert change.stderr == pytest.approx(100 * statistics.stdev(differences) / math.sqrt(len(pairs)), abs=1e-9)
    low, high = change.details["interval_95"]
    assert -100 <= low < high <= 100
    (back,) = changes([row(now)], [row(was)])
    assert back.details["interval_95"] == pytest.approx([-high, -low])


def test_the_interval_is_bonett_and_prices() -> None:
    """20 items lost, 8 gained, of 300: shares 9/302 and 21/302, by hand."""
    up, down = 9 / 302, 21 / 302
    half = 1.96 * math.sqrt((up + down - (up - down) ** 2) / 302)
    assert paired_interval(8, 20, 300) == pytest.approx((100 * (up - down - half), 100 * (up - down + half)))
    assert paired_interval(0, 0, 300)[1] > 0.5  # no item changed, and yet one of the next 300 may


def test_mcnemar_is_exact() -> None:
    from scipy.stats import binomtest

    for gained, lost in ((0, 0), (1, 0), (3, 9), (20, 20), (0, 12)):
        wanted = binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
        assert mcnemar(gained, lost) == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("lost", "gained", "fails"),
    [(0, 0, False), (6, 0, False), (30, 30, False), (20, 8, False), (30, 2, True), (300, 0, True)],
)
def test_the_gate_fails_a_drop_by_more_than_allowed_beyond_noise(lost: int, gained: int, fails: bool) -> None:
    """2 points of 300 items are 6. A drop of 4 points from 28 changed items is noise, one of 9.3 from 32 is not."""
    was = "1" * lost + "0" * (300 - lost)
    now = "0" * lost + "1" * gained + "0" * (300 - lost - gained)
    changed = changes([row(was)], [row(now)], 2.0)
    assert changed[0].value == pytest.approx((gained - lost) / 3)
    assert (failed_gate(changed, 2.0) == changed) == fails == changed[0].details["failed"]


def test_a_few_items_never_fail_the_gate() -> None:
    """Three of three lost: McNemar's p is 0.25."""
    assert not failed_gate(changes([row("111")], [row("000")]), 2.0)


def test_changes_pair_tasks_by_name_and_refuse_other_items() -> None:
    both = changes([row("11", name="piqa"), row("10")], [row("01"), row("11", name="piqa")])
    assert [(one.name, one.value) for one in both] == [("boolq", 0.0), ("piqa", 0.0)]
    for other in (row("10", digest="b"), row("100")):
        with pytest.raises(DataError, match="items of boolq are not the base's"):
            changes([row("11")], [other])
    assert changes([row("11"), row("11", name="piqa")], [row("11")])[0].name == "boolq"
    with pytest.raises(DataError, match=r"not measured on boolq; its short tasks: piqa"):
        changes([row("11", name="piqa")], [row("11")])
    with pytest.raises(DataError, match="drop of -1"):
        failed_gate(both, -1)


BOOLQ = LINES["boolq"][0]
RACE = LINES["race-middle"][0]


@pytest.mark.parametrize(
    ("name", "line", "said"),
    [
        ("boolq", "{", "line 2, is no item of boolq"),
        ("boolq", "[]", "line 2"),
        ("boolq", json.dumps({"query": BOOLQ["query"], "choices": ["no", "yes"]}), "no 'gold'"),
        ("boolq", json.dumps(BOOLQ | {"gold": 2}), "gold is 2, and must be from 0 to 1"),
        ("boolq", json.dumps(BOOLQ | {"gold": -1}), "gold is -1"),
        ("boolq", json.dumps(BOOLQ | {"gold": True}), "gold is True"),
        ("boolq", json.dumps(BOOLQ | {"choices": ["no", "maybe"]}), "'maybe' is neither 'no' nor 'yes'"),
        ("boolq", json.dumps(BOOLQ | {"query": "Foxes jump."}), "no line that begins with 'Question:'"),
        ("piqa", json.dumps(LINES["piqa"][0] | {"choices": ["a", "b", "c"]}), "2 choices are needed"),
        ("piqa", json.dumps(LINES["piqa"][0] | {"choices": ["a", ""]}), "'' is no text"),
        ("winogrande", json.dumps(LINES["winogrande"][0] | {"continuation": 3}), "3 is no text"),
        ("winogrande", json.dumps(LINES["winogrande"][0] | {"continuation": "\ud800"}), "surrogates not allowed"),
        ("race-high", json.dumps(RACE | {"answer": "E"}), "'E' is none of A, B, C, D"),
        ("race-high", json.dumps(RACE | {"options": ["a", "b"]}), "4 choices are needed"),
        ("race-high", json.dumps(LINES["race-high"][0] | {"answers": ["A"]}), "line 2"),
    ],
)
def test_a_line_that_is_no_item_is_named(tmp_path: Path, name: str, line: str, said: str) -> None:
    path = tmp_path / f"{name}.jsonl"
    path.write_text(json.dumps(LINES[name][0]) + f"\n{line}\n")
    with pytest.raises(DataError) as caught:
        task_files.local_documents(name, path)
    assert "line 2, is no item of" in str(caught.value) and said in str(caught.value)
    assert len(str(caught.value).splitlines()) == 3


def test_files_that_are_missing_or_empty_are_named(loaded: LoadedModel, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "piqa.jsonl").write_text("\n")
    with pytest.raises(DataError, match=r"no items for boolq(.|\n)*holds piqa\.jsonl"):
        measured(loaded, tmp_path, tmp_path, tasks=["piqa", "boolq"])
    with pytest.raises(DataError, match="holds no item"):
        measured(loaded, tmp_path, tmp_path, tasks=["piqa"])
    (tmp_path / "piqa.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="cannot be read"):
        measured(loaded, tmp_path, tmp_path, tasks=["piqa"])
    with pytest.raises(DataError, match="limit of 0"):
        measured(loaded, folder, tmp_path, limit=0)


def test_unknown_tasks_are_told_all_that_are_known() -> None:
    with pytest.raises(DataError) as caught:
        task_files.task_names(["boolq", "winogrand"])
    assert "Did you mean 'winogrande'?" in str(caught.value)
    assert all(name in str(caught.value) for name in (*NAMES, "race", "ruler", "niah_single_1", "longbench_gov_report"))
    assert task_files.task_names(["race", "piqa", "race-high"]) == ["race-middle", "race-high", "piqa"]


def test_without_lm_eval_it_says_what_to_install(
    loaded: LoadedModel, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task_files.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"pip install 'ropewalk\[evals\]'"):
        measured(loaded, folder, tmp_path)
    with pytest.raises(DataError, match=r"pip install 'ropewalk\[evals\]'"):
        EngineLM(loaded)


def test_what_cannot_be_answered_is_refused(loaded: LoadedModel) -> None:
    engine = EngineLM(narrow(loaded, 40))
    with pytest.raises(DataError, match="a choice has 0 tokens"):
        engine.loglikelihood([SimpleNamespace(args=("The fox", ""))])
    with pytest.raises(DataError, match=r"a choice has \d+ tokens, and the model's window is 40"):
        engine.loglikelihood([SimpleNamespace(args=("The fox", ARTICLE * 3))])
    for asked in ({"do_sample": True, "temperature": 1.0, "max_gen_toks": 4}, {"max_gen_toks": 40}):
        with pytest.raises(DataError, match="generate"):
            engine.generate_until([SimpleNamespace(args=("The fox", asked))])
