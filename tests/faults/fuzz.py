"""Inputs by the hundred thousand for everything that reads what others wrote: `python -m tests.faults.fuzz --count N`.

Each target takes bytes, and either gives an answer or raises what it promises to raise; everything else is a bug, and so
is an answer that does not hold what is said of it. Inputs are mutations of the corpus, in its JSON or in its bytes, from
a seed: the same seed and count give the same inputs. Guidance by coverage is not used: the readers are a few hundred
lines that every mutation of the right kind reaches.
"""

import argparse
import json
import os
import random
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np

from ropewalk.arguments import device_memory, memory, spread_data, token_list, tokens, words
from ropewalk.checkpoint.families import DEFAULT_THETA, LAYERED_THETA, OTHER_POSITIONS, OUT_OF_REACH, layer_notes
from ropewalk.checkpoint.files import require_own_code_only, weight_map_of
from ropewalk.checkpoint.folder import config_of
from ropewalk.checkpoint.headers import tensors_of
from ropewalk.checkpoint.rope_blocks import SIDES, text_section
from ropewalk.checkpoint.rope_config import contradictions, read_ropes
from ropewalk.checkpoint.rope_writing import written
from ropewalk.checkpoint.values import count
from ropewalk.errors import RopewalkError
from ropewalk.names import printable
from ropewalk.record import as_json, run_of
from ropewalk.reports.page import page
from ropewalk.reports.sources import Source, Sources, tuning_log
from ropewalk.rope.methods import METHODS
from ropewalk.rope.options import parsed_options, rescaled_by
from ropewalk.rope.spec import RopeSpec, Window
from ropewalk.text.documents import documents

CORPUS = Path(__file__).parent / "corpus"
HERE = Path("here")
_ACTIVE = {"script", "img", "iframe", "object", "embed", "base", "form"}


@dataclass(frozen=True)
class Target:
    """What is fed, what it may raise, and how much of the count it gets."""

    feed: Callable[[bytes], Any]
    raises: tuple[type[Exception], ...]
    share: float


def _config(raw: bytes) -> None:
    """What inspect, extend and check do with a config.json, but for the disk."""
    config = config_of(raw)
    require_own_code_only(config, "config.json")
    ropes = read_ropes(config, "config.json")
    text = text_section(config)
    for keys in SIDES.values():
        count(text, keys, "config.json")
    layer_notes(text)
    rope = ropes["full_attention"]
    contradictions(config, rope)
    told = rope.for_record()
    assert all(np.isfinite(told["inverse_frequencies"])) and len(told["inverse_frequencies"]) == rope.rotary_dim // 2
    printable(rope.in_words()).encode()
    as_json(told)
    again = read_ropes(json.loads(json.dumps(written(config, rope))), "config.json")["full_attention"]
    assert np.allclose(again.frequencies().inverse_F, told["inverse_frequencies"], rtol=1e-9, atol=0)
    assert again.window == rope.window


def _index(raw: bytes) -> None:
    for name in weight_map_of(raw).values():
        assert os.path.normpath(os.path.join("/folder", name)) == f"/folder/{name}" and "/" not in name


def _header(raw: bytes) -> None:
    size = 8 + len(raw) + 32
    ends = [(tensor.start, tensor.stop) for tensor in tensors_of(raw, size)]
    assert all(8 + len(raw) <= start <= stop <= size for start, stop in ends)
    assert sum(stop - start for start, stop in ends) == 32


@cache
def _file(suffix: str) -> Path:
    folder = "/dev/shm" if os.path.isdir("/dev/shm") else None
    return Path(tempfile.mkdtemp(prefix="fuzz", dir=folder)) / f"file{suffix}"


def _lines(raw: bytes) -> None:
    _file(".jsonl").write_bytes(raw)
    for document in documents([_file(".jsonl")]):
        assert document.text.strip() and len(document.sha256) == 64


def _text(raw: bytes) -> None:
    _file(".txt").write_bytes(raw)
    assert len(list(documents([_file(".txt")]))) <= 1


def _record(raw: bytes) -> None:
    run = run_of(raw, HERE)
    assert isinstance(run.resolved, dict) and isinstance(run.command, str)


class _Tags(HTMLParser):
    """What in a page could do something by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.active: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.active += [tag] * (tag in _ACTIVE) + [name for name, _ in attrs if name.startswith("on")]


def _page(raw: bytes) -> None:
    """A record as a page: whatever its texts are, they stay texts."""
    text = page(Sources((Source("one", run_of(raw, HERE)),), ()))
    tags = _Tags()
    tags.feed(text)
    assert not tags.active


def _log(raw: bytes) -> None:
    _file(".log").write_bytes(raw)
    points, unread = tuning_log(_file(".log"))
    assert unread >= 0 and all(np.isfinite(loss) for _, loss in points)


def _arguments(raw: bytes) -> None:
    """Every reader of the command line, one after the other; each may refuse."""
    text = raw.decode("utf-8", "replace")
    for read in (tokens, token_list, memory, device_memory, words):
        try:
            read(text)
        except RopewalkError:
            pass
    parts = text.split(" ")
    assert [part for part in spread_data(parts) if part != "--data"] == [part for part in parts if part != "--data"]
    name = parts[0] if parts[0] in METHODS else "yarn"
    rope = RopeSpec(theta=1e4, rotary_dim=8, window=Window(64, 64))
    after = rescaled_by(name, rope, 256, parsed_options(name, parts[1:]))
    assert all(np.isfinite(after.frequencies().inverse_F))


TARGETS = {
    "config": Target(_config, (RopewalkError, ValueError), 0.30),
    "index": Target(_index, (ValueError,), 0.15),
    "header": Target(_header, (ValueError,), 0.20),
    "lines": Target(_lines, (RopewalkError,), 0.08),
    "text": Target(_text, (RopewalkError,), 0.05),
    "record": Target(_record, (RopewalkError, ValueError), 0.08),
    "page": Target(_page, (RopewalkError, ValueError), 0.002),
    "log": Target(_log, (), 0.038),
    "arguments": Target(_arguments, (RopewalkError,), 0.10),
}

_ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 7, 8, 64, 2**31, 2**63, 2**64, 10**30, -(10**30), 0.0, -0.0, 0.5, 1.0, 1e-320, 1e15,
    1e300, float("nan"), float("inf"), -float("inf"), "", "x", "..", "../x.safetensors", "/x.safetensors", "\0", "\ud800",
    "1", "NaN", "x" * 300, [], {}, [None], [[]], [{}], {"": None}, {"a": {}}, [1, 2], [0.5] * 4, [1.0, 2.0, 4.0, 8.0],
    {"rope_type": "linear", "factor": 2.0}, {"rope_type": "yarn", "factor": 2.0}, {"rope_type": "dynamic", "factor": 2.0},
    {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
    {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4, "factor": 2.0},
    {"full_attention": {"rope_type": "default", "rope_theta": 1e4}}, {"sliding_attention": {"rope_type": "default"}},
    "<script>x</script>", "<img src=x onerror=y>", "]]>{{ 7 }}", "linear", "yarn", "llama3", "longrope", "dynamic", "default", "su", "mrope", "full_attention", "sliding_attention",
)  # fmt: skip
_KEYS = (
    "rope_theta", "rope_scaling", "rope_parameters", "rope_type", "type", "factor", "model_type", "text_config",
    "max_position_embeddings", "original_max_position_embeddings", "head_dim", "hidden_size", "num_attention_heads",
    "num_hidden_layers", "num_key_value_heads", "partial_rotary_factor", "layer_types", "sliding_window",
    "use_sliding_window", "attn_config", "short_factor", "long_factor", "attention_factor", "beta_fast", "beta_slow",
    "mscale", "mscale_all_dim", "truncate", "low_freq_factor", "high_freq_factor", "qk_rope_head_dim", "rotary_pct",
    "rotary_emb_base", "rope_local_base_freq", "global_rope_theta", "max_seq_len", "model_max_length", "n_positions",
    "mrope_section", "transformers_weights", "attn_implementation", "full_attention", "sliding_attention",
    "dtype", "shape", "data_offsets", "__metadata__", "weight_map", "text", "results", "given", "resolved", "ropes",
    "version", "command", "status", "details", "value", "stderr", "step", "loss",
)  # fmt: skip
_TYPES = (*DEFAULT_THETA, *LAYERED_THETA, *OTHER_POSITIONS, *OUT_OF_REACH)
_PIECES = (
    b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b"\0", b"\xff", b"\n", b"\r", b"NaN", b"-Infinity", b"1e999", b"\\ud800",
    b"9" * 50, b"null", b" ", b"=", b"--data", b"--", b"k", b"GB", b"@", b"e", b".", b"-", b"\xef\xbb\xbf", b"\xe2\x80\xa8",
    b"[" * 2000, b'{"a":' * 500,
)  # fmt: skip


def mutated(seed: bytes, rng: random.Random) -> bytes:
    """The seed with one to four changes."""
    if rng.random() < 0.7:
        try:
            content = json.loads(seed)
            for _ in range(rng.randint(1, 4)):
                content = _changed(content, rng)
            seed = json.dumps(content).encode("utf-8", "surrogatepass")
        except (ValueError, RecursionError):
            pass
        else:
            if rng.random() < 0.8:
                return seed
    for _ in range(rng.randint(1, 4)):
        seed = _spoiled(seed, rng)
    return seed


def _changed(value: Any, rng: random.Random) -> Any:
    """One value somewhere inside replaced, removed, added, or moved to another name."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        match rng.randrange(6):
            case 0:
                return {name: one for name, one in value.items() if name != key}
            case 1:
                return value | {rng.choice(_KEYS): rng.choice(_ODD)}
            case 2:
                return value | {rng.choice(_KEYS): value[key]}
            case 3 if key == "model_type":
                return value | {key: rng.choice(_TYPES)}
            case _:
                return value | {key: _changed(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.7:
        at = rng.randrange(len(value))
        return [*value[:at], _changed(value[at], rng), *value[at + rng.randint(0, 1) :]]
    return rng.choice(_ODD)


def _spoiled(raw: bytes, rng: random.Random) -> bytes:
    at = rng.randint(0, len(raw))
    match rng.randrange(6):
        case 0:
            return raw[:at]
        case 1:
            return raw[:at] + rng.choice(_PIECES) + raw[at:]
        case 2:
            return raw[:at] + raw[at + rng.randint(1, 8) :]
        case 3:
            return raw[:at] + bytes([rng.randrange(256)]) + raw[at + 1 :]
        case 4:
            other = rng.randint(0, len(raw))
            return raw[:at] + raw[min(at, other) : max(at, other)][:400] + raw[at:]
        case _:
            return raw[:at] + rng.randbytes(rng.randint(1, 6)) + raw[at:]


@cache
def seeds_of(name: str) -> tuple[bytes, ...]:
    folder = CORPUS / {"page": "record"}.get(name, name)
    return tuple(path.read_bytes() for path in sorted(folder.iterdir()))


def fed(name: str, raw: bytes) -> str | None:
    """None where the target kept its promises; else what it did."""
    target = TARGETS[name]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            target.feed(raw)
    except target.raises as error:
        if isinstance(error, AssertionError):
            return traceback.format_exc()
    except BaseException:
        return traceback.format_exc()
    return None


def fuzzed(name: str, number: int, seed: int) -> list[tuple[bytes, str]]:
    """The inputs that broke a promise, each with how, by the place where it broke: one each."""
    rng = random.Random(f"{name} {seed}")
    found: dict[str, tuple[bytes, str]] = {}
    for _ in range(number):
        raw = mutated(rng.choice(seeds_of(name)), rng)
        if (how := fed(name, raw)) is not None:
            found.setdefault("".join(how.splitlines()[-3:]), (raw, how))
    return list(found.values())


def main() -> None:
    parser = argparse.ArgumentParser(description="Feeds mutated inputs to every reader.")
    parser.add_argument("--count", type=int, default=100_000, help="inputs over all targets")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", choices=list(TARGETS))
    given = parser.parse_args()
    broken, total = 0, Counter[str]()
    for name, target in TARGETS.items():
        if given.target in (None, name):
            number = given.count if given.target else round(given.count * target.share)
            began = time.perf_counter()
            found = fuzzed(name, number, given.seed)
            total[name] += number
            print(f"{name}: {number:,} inputs, {time.perf_counter() - began:.0f} s, {len(found)} broke it", flush=True)
            for raw, how in found:
                print(raw[:2000], how, sep="\n")
            broken += len(found)
    print(f"{sum(total.values()):,} inputs in all, {broken} broke a promise")
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
