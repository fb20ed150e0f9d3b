"""The command line as people use it: every verb, exit codes, messages."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from ropewalk.arguments import spread_data, tokens
from ropewalk.cli import app
from ropewalk.errors import DataError
from ropewalk.record import read_run

RUNNER = CliRunner()


def ropewalk(*arguments: object, code: int = 0) -> str:
    """Output of the command, both streams; fails unless it exits with `code`."""
    result = RUNNER.invoke(app, spread_data([str(a) for a in arguments]))
    assert result.exit_code == code, f"{result.output}\n{result.exception!r}"
    if code == 2:
        assert "Traceback" not in result.output
    return result.output


def process(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "ropewalk", *map(str, arguments)], capture_output=True, text=True)


@pytest.mark.parametrize(
    "verb", ["", "bounds", "inspect", "extend", "check", "export", "search", "tune", "evaluate", "report", "run"]
)
def test_help_teaches(verb: str) -> None:
    text = ropewalk(*filter(None, [verb]), "--help")
    assert "Usage" in text and ("--out" in text or verb in ("", "bounds", "inspect", "check"))


def test_the_whole_way_on_a_tiny_model(tiny_llama: Path, texts: Path, tmp_path: Path) -> None:
    long, tuned, measured, page = (tmp_path / name for name in ("long", "tuned", "measured", "page.html"))
    assert "window 64 -> 512 by yarn" in ropewalk(
        "extend", tiny_llama, "--to", "512", "--method", "yarn", "--out", long
    )
    ropewalk("tune", long, "--data", texts, "--steps", 3, "--out", tuned)
    measure = ("evaluate", tuned, "--data", texts, "--lengths", "32,64,512", "--stride", 32, "--out", measured)
    assert "was tuned on what it is to be measured on: texts.jsonl:1 and 2 more" in ropewalk(*measure, code=2)
    output = ropewalk(*measure, "--allow-overlap")
    assert "k_max" in output and "512" in output
    run = read_run(measured)
    assert [row.length for row in run.results if row.metric == "perplexity"] == [32, 64, 512]
    assert len([row for row in run.results if row.metric == "accuracy"]) == 32
    assert run.resolved["subject"]["tuning_steps"] == 3
    ropewalk("report", measured, tuned, "--out", page)
    assert "<svg" in page.read_text()


def test_numbers_are_the_same_again_and_resuming_what_is_done_changes_nothing(
    tiny_llama: Path, texts: Path, tmp_path: Path
) -> None:
    options = ("--data", texts, "--lengths", "32,400", "--stride", 32)
    for name in ("a", "b"):
        ropewalk("evaluate", tiny_llama, *options, "--out", tmp_path / name)
    assert read_run(tmp_path / "a").results == read_run(tmp_path / "b").results
    before = (tmp_path / "a" / "run.json").read_bytes()
    ropewalk("evaluate", tiny_llama, *options, "--out", tmp_path / "a", "--resume")
    assert (tmp_path / "a" / "run.json").read_bytes() == before


@pytest.mark.parametrize("kept", [0, 1, 5, 20])
def test_an_evaluation_that_was_killed_goes_on_where_it_stopped(
    tiny_llama: Path, texts: Path, tmp_path: Path, kept: int
) -> None:
    options = ("--data", texts, "--lengths", "32,400", "--stride", 32)
    ropewalk("evaluate", tiny_llama, *options, "--out", tmp_path / "a")
    whole = read_run(tmp_path / "a")
    record = json.loads((tmp_path / "a" / "run.json").read_text())
    (tmp_path / "a" / "run.json").write_text(json.dumps(record | {"status": "started", "results": []}))
    pieces = tmp_path / "a" / "pieces.jsonl"
    lines = pieces.read_text().splitlines(keepends=True)
    pieces.write_text("".join(lines[:kept]) + lines[kept][: len(lines[kept]) // 2])  # the last line torn
    assert "unfinished (status started)" in ropewalk("evaluate", tiny_llama, *options, "--out", tmp_path / "a", code=2)
    ropewalk("evaluate", tiny_llama, *options, "--out", tmp_path / "a", "--resume")
    assert read_run(tmp_path / "a").results == whole.results
    assert sorted(pieces.read_text().splitlines()) == sorted("".join(lines).splitlines())


def test_an_evaluation_is_not_resumed_on_other_texts(tiny_llama: Path, texts: Path, tmp_path: Path) -> None:
    copy, out = tmp_path / "copy.jsonl", tmp_path / "a"
    copy.write_text(texts.read_text())
    options = ("--data", copy, "--tasks", "perplexity", "--lengths", "32", "--out", out)
    ropewalk("evaluate", tiny_llama, *options)
    record = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps(record | {"status": "interrupted"}))
    copy.write_text(texts.read_text().replace("fox", "cat"))
    assert "the texts are not those" in ropewalk("evaluate", tiny_llama, *options, "--resume", code=2)


def test_inspect_shows_before_and_after_without_torch(tiny_llama: Path) -> None:
    text = ropewalk("inspect", tiny_llama, "--method", "pi", "--to", 256)
    assert "theta 10000, 4 pairs, window 64, unscaled" in text and "linear (factor 4.0)" in text
    answer = json.loads(ropewalk("inspect", tiny_llama, "--to", 256, "--json"))
    assert answer["after"]["scaling"] == {"rope_type": "linear", "factor": 4.0}
    program = (
        "import sys; from ropewalk.inspection import inspect; inspect(sys.argv[1]); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program, str(tiny_llama)], check=True)


def test_extend_dry_run_writes_nothing(tiny_llama: Path, tmp_path: Path) -> None:
    assert "nothing was written" in ropewalk("extend", tiny_llama, "--to", "1k", "--out", tmp_path / "x", "--dry-run")
    assert not list(tmp_path.iterdir())


BAD = [
    (["extend", "NOWHERE", "--to", "1k", "--out", "x"], "no such model"),
    (["extend", "MODEL", "--to", "64", "--out", "x"], "not above the window of 64"),
    (["extend", "MODEL", "--to", "8.5k", "--out", "x"], "not a number of tokens"),
    (["extend", "MODEL", "--to", "-8", "--out", "x"], "not a number of tokens"),
    (["extend", "MODEL", "--to", "1k", "--method", "pie", "--out", "x"], "Did you mean 'pi'?"),
    (["extend", "MODEL", "--to", "1k", "--method", "yarn", "--option", "beta_fats=1", "--out", "x"], "'beta_fast'"),
    (["extend", "MODEL", "--to", "1k", "--method", "abf", "--out", "x"], "method abf needs theta"),
    (["extend", "MODEL", "--to", "1k", "--from", "orignal", "--out", "x"], "Did you mean 'original'?"),
    (["check", "MODEL", "--runtime", "vlm"], "Did you mean 'vllm'?"),
    (["check", "NOWHERE"], "no such model"),
    (["export", "MODEL", "--to", "ggml", "--out", "x"], "Known: gguf"),
    (["inspect", "MODEL", "--method", "pi"], "have no effect without --to"),
    (["evaluate", "MODEL", "--data", "NOWHERE", "--out", "x"], "no such text"),
    (["evaluate", "MODEL", "--data", "TEXTS", "--tasks", "passky", "--out", "x"], "Did you mean 'passkey'?"),
    (["evaluate", "MODEL", "--data", "TEXTS", "--tasks", ",", "--out", "x"], "no task given"),
    (["evaluate", "MODEL", "--data", "TEXTS", "--lengths", "1", "--out", "x"], "scores nothing"),
    (["evaluate", "MODEL", "--data", "TEXTS", "--lengths", "64", "--out", "x"], "a passkey document needs"),
    (["tune", "MODEL", "--data", "EMPTY", "--out", "x"], "shorter than one training sequence"),
    (["tune", "MODEL", "--data", "TEXTS", "--steps", "0", "--out", "x"], "--steps is 0"),
    (["run", "MODEL", "--data", "EMPTY", "--to", "128", "--out", "x"], "every document is empty"),
    (["run", "MODEL", "--data", "SHORT", "--to", "4k", "--out", "x"], "is too short"),
    (["run", "MODEL", "--data", "TEXTS", "--to", "32", "--out", "x"], "not above the window of 64"),
    (["report", "NOWHERE", "--out", "x"], "NOWHERE"),
    (["evaluate", "MODEL", "--data", "TEXTS", "--out", "INSIDE"], "lies inside"),
    (["report", "MODEL", "--out", "INSIDE"], "lies inside"),
]


@pytest.mark.parametrize(("arguments", "says"), BAD, ids=[says for _, says in BAD])
def test_mistakes_get_one_message_exit_code_two_and_leave_nothing(
    arguments: list[str], says: str, tiny_llama: Path, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("EMPTY").write_text("  \n")
    Path("SHORT").write_text("only a little text")
    named = {"MODEL": str(tiny_llama), "TEXTS": str(texts), "INSIDE": str(tiny_llama / "x")}
    assert says in ropewalk(*[named.get(a, a) for a in arguments], code=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["EMPTY", "SHORT"]
    assert not (tiny_llama / "x").exists()


def test_check_says_what_each_runtime_will_do_and_mends_what_one_schema_leaves_unsaid(
    tiny_llama: Path, tmp_path: Path
) -> None:
    from transformers import AutoConfig

    long = tmp_path / "long"
    ropewalk("extend", tiny_llama, "--to", 256, "--out", long)
    ropewalk("check", long, "--runtime", "transformers-4", "--runtime", "mlx-lm")
    AutoConfig.from_pretrained(long).save_pretrained(long)  # as version 5 leaves it, in one schema
    assert "silently wrong" in ropewalk("check", long, "--runtime", "transformers-4", code=1)
    outcomes = {v["runtime"]: v["outcome"] for v in json.loads(ropewalk("check", long, "--json"))}
    assert outcomes["transformers-5"] == "exact" and outcomes["vllm"] == "exact with a flag"
    ropewalk("check", long, "--runtime", "transformers-4", "--fix")
    ropewalk("check", long, "--runtime", "transformers-4")
    assert json.loads((long / "config.json").read_text())["rope_scaling"]["factor"] == 4.0


def test_check_does_not_write_through_a_link(tiny_llama: Path, tmp_path: Path) -> None:
    config = json.loads((tiny_llama / "config.json").read_text())
    (tmp_path / "blob").write_text(
        json.dumps({k: v for k, v in config.items() if k not in ("rope_theta", "rope_scaling")})
    )
    (tmp_path / "snapshot").mkdir()
    for path in tiny_llama.iterdir():
        target = tmp_path / "blob" if path.name == "config.json" else path
        (tmp_path / "snapshot" / path.name).symlink_to(target)
    before = (tmp_path / "blob").read_text()
    assert "is a link" in ropewalk("check", tmp_path / "snapshot", "--fix", code=2)
    assert (tmp_path / "blob").read_text() == before


def test_a_config_that_says_two_things_is_not_mended_by_guessing(tiny_llama: Path, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "model"
    shutil.copytree(tiny_llama, folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}, "rope_theta": 5e5}
    (folder / "config.json").write_text(json.dumps(config))
    assert "says two things" in ropewalk("check", folder, "--fix", code=2)
    assert json.loads((folder / "config.json").read_text()) == config


def test_export_writes_one_file(tiny_llama: Path, tmp_path: Path) -> None:
    assert "nothing was written" in ropewalk("export", tiny_llama, "--out", tmp_path / "file", "--dry-run")
    path = Path(ropewalk("export", tiny_llama, "--out", tmp_path / "file").splitlines()[-1])
    assert path.suffix == ".gguf" and path.read_bytes()[:4] == b"GGUF"


def test_inspect_shows_every_pair_and_what_a_window_costs(tiny_llama: Path) -> None:
    text = ropewalk("inspect", tiny_llama, "--to", 256, "--method", "by-parts")
    assert "written as rope_type yarn" in text and "never complete a turn" in text and "KV cache" in text
    answer = json.loads(ropewalk("inspect", tiny_llama, "--json"))
    # 2 layers, 1 key head of 8, keys and values, 2 bytes, 64 tokens
    assert answer["cost"] == [{"length": 64, "kv_cache_bytes": 2 * 2 * 1 * 8 * 2 * 64, "attention_share": pytest.approx(
        2 * 64**2 * 24 * 2 / (2 * 64 * answer["parameters"])
    )}]  # fmt: skip


def test_a_process_of_its_own_ends_with_the_same_codes(tiny_llama: Path, tmp_path: Path) -> None:
    done = process("extend", tiny_llama, "--to", 128, "--out", tmp_path / "x")
    assert (done.returncode, done.stderr) == (0, "")
    again = process("extend", tiny_llama, "--to", 128, "--out", tmp_path / "x")
    assert again.returncode == 2 and again.stdout == "" and "there already, and finished" in again.stderr
    assert process("extend", tiny_llama, "--to", 128).returncode == 2  # no --out


def test_tokens_are_counted_in_units_of_1024() -> None:
    assert [tokens(t) for t in ("8192", "8k", "8K", "1m", "2_048")] == [8192, 8192, 8192, 1024**2, 2048]
    for text in ("", "k", "0", "-1", "1.5k", "8kb", "٣x"):
        with pytest.raises(DataError):
            tokens(text)


def test_several_texts_may_follow_data() -> None:
    assert spread_data(["tune", "--data", "a", "b", "--data", "c", "--out", "d", "e"]) == [
        "tune", "--data", "a", "--data", "b", "--data", "c", "--out", "d", "e",
    ]  # fmt: skip


def test_a_run_does_not_begin_inside_the_model_s_folder(tiny_llama: Path, texts: Path) -> None:
    out = tiny_llama / "study"
    assert "never written to" in ropewalk("run", tiny_llama, "--to", "128", "--data", texts, "--out", out, code=2)
    assert not out.exists()


@pytest.mark.parametrize("numbers", [2**50, 2**62])
def test_no_memory_left_is_no_bug(numbers: int, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real allocation that fails, in place of the work; any other RuntimeError keeps its traceback."""
    monkeypatch.setattr("ropewalk.inspection.inspect", lambda *a, **k: torch.empty(numbers, dtype=torch.uint8))
    assert "out of memory: " in ropewalk("inspect", tiny_llama, code=2)

    def broken(*arguments: object, **options: object) -> None:
        raise RuntimeError("shapes differ")

    monkeypatch.setattr("ropewalk.inspection.inspect", broken)
    with pytest.raises(RuntimeError, match="shapes differ"):
        RUNNER.invoke(app, ["inspect", str(tiny_llama)], catch_exceptions=False)


def test_steps_of_a_run_are_numbers(tiny_llama: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    message = ropewalk("run", tiny_llama, "--to", "128,256", "--steps", "5,many", "--out", out, code=2)
    assert "--steps is '5,many'" in message and "whole numbers" in message
    assert "--steps has 3 numbers" in ropewalk(
        "run", tiny_llama, "--to", "128,256", "--steps", "1,2,3", "--out", out, code=2
    )
    assert not out.exists()
