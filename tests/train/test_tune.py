"""Tuning: it learns, it equals a plain loop, and stopping it anywhere changes nothing."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from ropewalk.errors import CheckpointError, DataError, OutputError
from ropewalk.extension import extend
from ropewalk.record import read_run
from ropewalk.train import loop
from ropewalk.train.loop import Trainer
from ropewalk.train.recipe import default_learning_rate, resolved_recipe
from ropewalk.train.rows import TokenRows, joined_tokens
from ropewalk.train.tune import tune
from tests.conftest import TEXT, config_of, make_llama


@pytest.fixture(scope="module")
def extended(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("extended") / "long"
    extend(tiny_llama, to=128, out=out)
    return out


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(TEXT)
    return path


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def assert_same_weights(a: Path, b: Path) -> None:
    ours, theirs = weights(a), weights(b)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_papers_schedule() -> None:
    """Linear from a tenth over 20 steps, then constant."""
    recipe = resolved_recipe("paper", parameters=7 * 10**9, length=8192, steps=1000)
    assert (recipe.learning_rate, recipe.sequences, recipe.betas, recipe.weight_decay) == (2e-5, 64, (0.9, 0.95), 0.0)
    assert [recipe.rate(step) for step in (0, 10, 20, 999)] == pytest.approx([2e-6, 1.1e-5, 2e-5, 2e-5])
    assert default_learning_rate(33 * 10**9) == default_learning_rate(65 * 10**9) == 1e-5


def test_small_models_take_four_windows_a_step() -> None:
    assert resolved_recipe("paper", parameters=10**6, length=1024, steps=1).batch_tokens == 4096


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"batch_tokens": 1000}, "not a whole number of sequences of 128"),
        ({"batch_tokens": 64}, "such as 128"),
        ({"steps": 0}, "--steps is 0"),
        ({"learning_rate": -1.0}, "--learning-rate is -1.0"),
        ({"learning_rate": float("nan")}, "--learning-rate is nan"),
        ({"name": "papre"}, "Did you mean 'paper'"),
    ],
)
def test_recipes_that_make_no_batch_are_refused(options: dict, says: str) -> None:
    given = {"name": "paper", "parameters": 10**6, "length": 128, "steps": 5} | options
    with pytest.raises(DataError) as error:
        resolved_recipe(given.pop("name"), **given)
    assert says in str(error.value)


def test_rows_cut_the_text_without_loss_and_each_epoch_reads_all_of_it() -> None:
    tokens = joined_tokens(([i] * 10 for i in range(10)), 100, 8, "here")
    rows = TokenRows(tokens, 8, seed=3)
    assert rows.count == 12
    for epoch in range(2):
        read = [rows.row(12 * epoch + place).tokens.tolist() for place in range(12)]
        assert sorted(read) == sorted(tokens[8 * i : 8 * i + 8].tolist() for i in range(12))
    assert [rows.row(i).tokens.tolist() for i in range(12)] != [rows.row(12 + i).tokens.tolist() for i in range(12)]
    again = TokenRows(tokens, 8, seed=3)
    assert again.row(17).tokens.tolist() == rows.row(17).tokens.tolist()  # any row by its number, in any order


def test_text_shorter_than_a_sequence_is_refused() -> None:
    with pytest.raises(DataError, match=r"is 20 tokens, shorter than one training sequence of 21"):
        joined_tokens([[1] * 20], 100, 21, "here")


def test_tuning_equals_a_plain_loop(extended: Path, text: Path, tmp_path: Path) -> None:
    """Same rows, torch's own loss over all logits, torch's own AdamW: the same weights to float32 rounding."""
    tune(extended, out=tmp_path / "tuned", data=[text], steps=6, learning_rate=3e-3, batch_tokens=512, seed=1)
    from ropewalk.checkpoint.folder import open_checkpoint
    from ropewalk.model.load import load_codec
    from ropewalk.train.data import training_rows

    recipe = resolved_recipe("paper", parameters=1, length=128, steps=6, learning_rate=3e-3, batch_tokens=512)
    rows, _ = training_rows(load_codec(open_checkpoint(extended)), [text], recipe, 1)
    model = AutoModelForCausalLM.from_pretrained(extended)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1.0, betas=(0.9, 0.95), weight_decay=0.0)
    losses = []
    for step in range(6):
        tokens = torch.stack([torch.from_numpy(rows.row(4 * step + i).tokens) for i in range(4)])
        loss = model(tokens, labels=tokens).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate(step)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    logged = [json.loads(line)["loss"] for line in (tmp_path / "tuned" / "log.jsonl").read_text().splitlines()]
    assert logged == pytest.approx(losses, abs=1e-5)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(weights(tmp_path / "tuned")[name], parameter.data, rtol=1e-3, atol=1e-5)


def test_accumulation_changes_nothing(
    extended: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tune(extended, out=tmp_path / "at-once", data=[text], steps=3, batch_tokens=512)
    monkeypatch.setattr(loop, "MICRO_TOKENS", 1)
    tune(extended, out=tmp_path / "one-by-one", data=[text], steps=3, batch_tokens=512)
    ours, theirs = weights(tmp_path / "at-once"), weights(tmp_path / "one-by-one")
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-4, atol=1e-6)


def test_the_tuned_folder_is_a_whole_checkpoint(extended: Path, text: Path, tmp_path: Path) -> None:
    out = tmp_path / "tuned"
    run = tune(extended, out=out, data=[text], steps=40, learning_rate=5e-3)
    losses = [json.loads(line)["loss"] for line in (out / "log.jsonl").read_text().splitlines()]
    assert len(losses) == 40 and losses[-1] < 0.6 * losses[0]
    model = AutoModelForCausalLM.from_pretrained(out)
    assert model.config.rope_parameters["factor"] == 2.0
    assert config_of(out)["rope_scaling"] == {
        "rope_type": "linear",
        "factor": 2.0,
    }  # the older schema, after tuning too
    assert (out / "tokenizer.json").is_file() and "Tuned for 40 steps" in (out / "README.md").read_text()
    subject = run.resolved["subject"]
    assert (subject["method"], subject["tuned"], subject["tuning_steps"]) == ("pi", True, 40)
    assert [p.name for p in (out / "saves").iterdir()] == ["step-000040"]
    assert run.results[0].value == pytest.approx(sum(losses[-10:]) / 10)


def test_a_bfloat16_checkpoint_stays_one(tiny_tokenizer: Path, text: Path, tmp_path: Path) -> None:
    source = make_llama(tmp_path / "model", tiny_tokenizer)
    AutoModelForCausalLM.from_pretrained(source, dtype=torch.bfloat16).save_pretrained(source)
    tune(source, out=tmp_path / "tuned", data=[text], steps=2, length=32)
    assert {tensor.dtype for tensor in weights(tmp_path / "tuned").values()} == {torch.bfloat16}


class Killed(BaseException):
    """What a kill looks like from inside: nothing after it runs."""


@pytest.mark.parametrize("step", [1, 4, 5, 7])
def test_resumed_equals_uninterrupted_bit_for_bit(
    extended: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    options = {"data": [text], "steps": 8, "save_every": 2, "learning_rate": 3e-3}
    tune(extended, out=tmp_path / "whole", **options)
    one_step = Trainer._one_step

    def killed_at(self: Trainer) -> dict[str, float]:
        if self.step == step:
            raise Killed
        return one_step(self)

    monkeypatch.setattr(Trainer, "_one_step", killed_at)
    with pytest.raises(Killed):
        tune(extended, out=tmp_path / "killed", **options)
    monkeypatch.undo()
    assert not (tmp_path / "killed" / "config.json").exists()  # not loadable before it is whole
    with pytest.raises(OutputError, match=r"unfinished \(status failed\).*\n.*\n.*--resume"):
        tune(extended, out=tmp_path / "killed", **options)
    tune(extended, out=tmp_path / "killed", resume=True, **options)
    assert_same_weights(tmp_path / "whole", tmp_path / "killed")
    logs = [(tmp_path / name / "log.jsonl").read_text().splitlines() for name in ("whole", "killed")]
    assert [json.loads(line)["loss"] for line in logs[0]] == [json.loads(line)["loss"] for line in logs[1]]
    finished = read_run(tmp_path / "killed").finished
    assert tune(extended, out=tmp_path / "killed", resume=True, **options).finished == finished  # nothing left to do


def in_a_process(extended: Path, text: Path, out: Path, *more: str) -> list[str]:
    return [
        sys.executable, "-m", "ropewalk", "tune", str(extended), "--data", str(text), "--steps", "120", "--save-every", "20",
        "--out", str(out), *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed(extended: Path, text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the runs below are to end as."""
    out = tmp_path_factory.mktemp("undisturbed") / "whole"
    done = subprocess.run(in_a_process(extended, text, out), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.model
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_in_mid_run_loses_nothing(
    extended: Path, text: Path, undisturbed: Path, tmp_path: Path, number: int
) -> None:
    command = in_a_process(extended, text, tmp_path / "run")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    log = tmp_path / "run" / "log.jsonl"
    deadline = time.time() + 120
    while not (log.exists() and log.read_text().count("\n") >= 30):
        assert process.poll() is None, process.communicate()[1]
        assert time.time() < deadline
        time.sleep(0.005)
    os.kill(process.pid, number)
    _, errors = process.communicate(timeout=60)
    status = read_run(tmp_path / "run").status
    if number == signal.SIGKILL:
        assert status == "started"
    else:
        assert process.returncode == 130 and "go on with --resume" in errors and "Traceback" not in errors
        assert status == "interrupted"
    resumed = subprocess.run([*command, "--resume"], capture_output=True, text=True)
    assert resumed.returncode == 0, resumed.stderr
    assert_same_weights(undisturbed, tmp_path / "run")


def test_resuming_with_other_arguments_or_texts_is_refused(
    extended: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Trainer) -> dict[str, float]:
        raise Killed

    copy = tmp_path / "text.txt"
    copy.write_text(text.read_text())
    monkeypatch.setattr(Trainer, "_one_step", broken)
    with pytest.raises(Killed):
        tune(extended, out=tmp_path / "a", data=[copy], steps=4)
    monkeypatch.undo()
    with pytest.raises(OutputError, match="begun with other arguments: steps 4, now 5"):
        tune(extended, out=tmp_path / "a", data=[copy], steps=5, resume=True)

    def at_three(self: Trainer) -> dict[str, float]:
        if self.step == 3:
            raise Killed
        return one_step(self)

    one_step = Trainer._one_step
    monkeypatch.setattr(Trainer, "_one_step", at_three)
    with pytest.raises(Killed):
        tune(extended, out=tmp_path / "a", data=[copy], steps=4, save_every=1, resume=True)
    monkeypatch.undo()
    copy.write_text(text.read_text()[5:])
    with pytest.raises(DataError, match="texts are not those"):
        tune(extended, out=tmp_path / "a", data=[copy], steps=4, save_every=1, resume=True)


def stopped_at_three(monkeypatch: pytest.MonkeyPatch, model: Path, out: Path, **given: object) -> None:
    """A run of four steps with a save after each, killed before its last."""
    one_step = Trainer._one_step

    def at_three(self: Trainer) -> dict[str, float]:
        if self.step == 3:
            raise Killed
        return one_step(self)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_one_step", at_three)
        with pytest.raises(Killed):
            tune(model, out=out, steps=4, save_every=1, **given)


@pytest.mark.parametrize("changed", ["weights", "rotation"])
def test_another_checkpoint_at_the_same_path_is_not_gone_on_from(
    changed: str, tiny_llama: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What saves hold of LoRA would be laid over other weights, and what they hold of all weights turned otherwise."""
    model, out, given = tmp_path / "long", tmp_path / "out", {"data": [text], "adapter": "lora"}
    extend(tiny_llama, to=128, out=model)
    stopped_at_three(monkeypatch, model, out, **given)
    before = (out / "run.json").read_bytes()
    kept = shutil.copytree(model, tmp_path / "kept")
    shutil.rmtree(model)
    if changed == "rotation":
        extend(tiny_llama, to=128, out=model, method="yarn")
    else:
        shutil.copytree(kept, model)
        flipped = bytearray((model / "model.safetensors").read_bytes())
        flipped[-1] ^= 1
        (model / "model.safetensors").write_bytes(flipped)
    with pytest.raises(DataError, match=f"the {changed} of .* is not what .* was begun with"):
        tune(model, out=out, steps=4, save_every=1, resume=True, **given)
    assert (out / "run.json").read_bytes() == before
    shutil.rmtree(model)
    shutil.copytree(kept, model, copy_function=shutil.copy)  # copied anew, later: the same checkpoint
    assert tune(model, out=out, steps=4, save_every=1, resume=True, **given).status == "done"


def test_a_newest_save_that_does_not_say_what_it_holds_is_not_passed_over(
    extended: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped_at_three(monkeypatch, extended, tmp_path / "out", data=[text], keep_saves=2)
    newest = tmp_path / "out" / "saves" / "step-000003"
    state = (newest / "state.json").read_bytes()
    (newest / "state.json").write_bytes(state[:20])
    again = {"data": [text], "steps": 4, "save_every": 1, "keep_saves": 2, "resume": True}
    with pytest.raises(CheckpointError, match=r"step-000003 cannot be read.*\n.*go on from step 2"):
        tune(extended, out=tmp_path / "out", **again)
    (newest / "state.json").write_bytes(state)
    assert tune(extended, out=tmp_path / "out", **again).status == "done"


def test_saves_that_a_kill_left_after_the_end_are_removed_where_none_are_to_stay(
    extended: Path, text: Path, tmp_path: Path
) -> None:
    given = {"data": [text], "steps": 2, "out": tmp_path / "out"}
    tune(extended, save_every=1, **given)
    assert (tmp_path / "out" / "saves").exists()
    tune(extended, save_every=1, keep_saves=0, resume=True, **given)
    assert not (tmp_path / "out" / "saves").exists()


def test_what_cannot_be_tuned_is_refused_before_any_work(extended: Path, text: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for options, error, says in (
        ({"length": 256}, DataError, "beyond the model's window of 128"),
        ({"save_every": 0}, DataError, "--save-every is 0"),
        ({"keep_saves": -1}, DataError, "--keep-saves -1"),
        ({"adapter": "lorra"}, DataError, "unknown adapter"),
        ({"dtype": "float99"}, CheckpointError, "unknown dtype"),
        ({"device": "cuda:77"}, CheckpointError, "no device 'cuda:77'"),
        ({"data": [tmp_path / "none"]}, DataError, "no such text"),
    ):
        with pytest.raises(error, match=says):
            tune(extended, out=out, **({"data": [text], "steps": 2} | options))
        assert not out.exists()


def test_a_loss_that_is_not_finite_stops_with_the_step_named(extended: Path, text: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gradient norm of .* at step \d+, rows \d+ to \d+: tuning cannot go on"):
        tune(
            extended,
            out=tmp_path / "out",
            data=[text],
            steps=200,
            learning_rate=0.999,
            batch_tokens=128,
            dtype="float16",
        )


@pytest.mark.parametrize("at_once", [1, 10_000])
def test_weights_of_targets_are_shares_of_the_whole_batch(
    extended: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    """Against torch's own loss over all logits; weights differ from row to row, and the first is nobody's."""
    from ropewalk.train.rows import Row

    def weighted(length: int, rng) -> Row:
        weights = np.array([rng.choice((0.0, 1.0, 10.0)) for _ in range(length)], dtype=np.float32)
        return Row(np.array([rng.randrange(300) for _ in range(length)], dtype=np.int64), weights)

    monkeypatch.setattr(loop, "MICRO_TOKENS", at_once)
    rows = TokenRows(np.zeros(64, dtype=np.int32), 32, seed=0, retrieval=weighted, retrieval_share=1.0)
    recipe = resolved_recipe("paper", parameters=1, length=32, steps=1, batch_tokens=96)
    model = AutoModelForCausalLM.from_pretrained(extended)
    trainer = loop.Trainer(model, recipe, rows, tmp_path, torch.float32)
    ours, targets = trainer._accumulate()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    batch = [rows.row(n) for n in range(3)]
    tokens = torch.from_numpy(np.stack([row.tokens for row in batch]))
    weights_BL = torch.from_numpy(np.stack([row.weights for row in batch]))[:, 1:]
    losses = torch.nn.functional.cross_entropy(
        model(tokens).logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten(), reduction="none"
    )
    theirs = (losses * weights_BL.flatten()).sum() / weights_BL.sum()
    theirs.backward()
    assert ours == pytest.approx(theirs.item(), rel=1e-5)
    assert targets == int((weights_BL > 0).sum())
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-3, atol=1e-6)


def test_half_of_the_pilot_s_rows_are_text_and_the_others_teach_retrieval() -> None:
    """Of 400 rows: 200 texts, 140 of passkeys, whose answers weigh twelve times, 60 of copies; within four deviations."""
    from ropewalk.checkpoint.folder import open_checkpoint
    from ropewalk.model.load import load_codec
    from ropewalk.train.data import training_rows

    codec = load_codec(open_checkpoint("pilot"))
    recipe = resolved_recipe("paper", parameters=1, length=256, steps=10, batch_tokens=1024)
    rows, _ = training_rows(codec, ["pilot"], recipe, 0)
    made = [rows.row(number) for number in range(400)]
    passkeys = [row for row in made if row.weights.max() > 1]
    copies = [row for row in made if row.weights.min() == 0]
    assert 102 <= len(passkeys) <= 178 and 31 <= len(copies) <= 89
    assert 160 <= 400 - len(passkeys) - len(copies) <= 240
    for row in passkeys:
        answers = codec.decode(row.tokens[row.weights == 12.0].tolist())
        assert set(row.weights.tolist()) == {1.0, 12.0} and set(answers) <= set("0123456789 ") and len(answers) >= 5
    for row in copies:
        known = np.flatnonzero(row.weights)
        assert set(row.weights.tolist()) == {0.0, 1.0} and row.tokens.min() > 1  # no special token
        for place in known:
            before = [row.tokens[i : i + 2].tolist() for i in range(place - 2)]
            assert row.tokens[place - 2 : place].tolist() in before
