"""A checkpoint's tokenizer as llama.cpp takes it: byte-level BPE (`gpt2`) or SentencePiece's BPE (`llama`)."""

import json
import logging
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

from ropewalk.checkpoint.folder import Checkpoint
from ropewalk.errors import CheckpointError
from ropewalk.exporting.llama_cpp import gguf_package

ADDED_SCORE = -1000.0  # tokens beside SentencePiece's own; they are matched whole, never merged

# Steps of pre_tokenizer in tokenizer.json, and ignore_merges -> llama.cpp's name of the same splits. It knows splits by
# name only. The patterns are those that the published tokenizers carry.
_GPT2 = "ByteLevel"
_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORDS, _REST = r"|[^\r\n\p{L}\p{N}]?\p{L}+|", r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA3 = _CONTRACTIONS + _WORDS + r"\p{N}{1,3}" + _REST
_QWEN2 = _CONTRACTIONS + _WORDS + r"\p{N}" + _REST
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_TEKKEN = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*|\p{{N}}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_PRE_TOKENIZERS = {
    ((_GPT2,), False): "gpt-2",
    (("Digits", _GPT2), False): "smollm",
    ((_LLAMA3,), True): "llama-bpe",
    ((_LLAMA3,), False): "dbrx",
    ((_QWEN2,), False): "qwen2",
    ((_TEKKEN,), True): "tekken",
}
FALLBACK = "gpt-2"


@dataclass(frozen=True)
class Vocabulary:
    """Everything under `tokenizer.ggml`. `doubts` are sentences on what llama.cpp may tokenize otherwise."""

    model: str  # gpt2 or llama
    pre_tokenizer: str
    tokens: list[str]
    types: list[int]
    scores: list[float] | None
    space_prefix: bool | None
    special: Any  # gguf's SpecialVocab: merges, ids and chat template
    doubts: tuple[str, ...]

    def write(self, writer: Any) -> None:
        writer.add_tokenizer_model(self.model)
        writer.add_tokenizer_pre(self.pre_tokenizer)
        writer.add_token_list(self.tokens)
        if self.scores is not None:
            writer.add_token_scores(self.scores)
        writer.add_token_types(self.types)
        if self.space_prefix is not None:
            writer.add_add_space_prefix(self.space_prefix)
        self.special.add_to_gguf(writer, quiet=True)


def read_vocabulary(checkpoint: Checkpoint, rows: int) -> Vocabulary:
    """The tokenizer in the folder, filled up with unused tokens to the `rows` of the embeddings.

    Raises CheckpointError when there is none, or none that llama.cpp computes in these families.
    """
    try:
        return _read(checkpoint, rows)
    except CheckpointError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise CheckpointError(
            f"the tokenizer in {checkpoint.folder} cannot be read: {error!r}.\n  Fetch the checkpoint again."
        ) from None


def _read(checkpoint: Checkpoint, rows: int) -> Vocabulary:
    tokenizer = _json(checkpoint, "tokenizer.json")
    model = tokenizer.get("model", {})
    decoder = (tokenizer.get("decoder") or {}).get("type")
    is_bpe = model.get("type") == "BPE"
    if is_bpe and not model.get("byte_fallback") and decoder == "ByteLevel":
        return _byte_level(checkpoint, tokenizer, rows)
    if (checkpoint.folder / "tokenizer.model").is_file():
        return _sentencepiece(checkpoint, tokenizer, rows)
    if is_bpe and model.get("byte_fallback"):
        return _from_merges(checkpoint, tokenizer, rows)
    found = f"a tokenizer of the type {model.get('type')!r}" if model else "no tokenizer"
    raise CheckpointError(
        f"{checkpoint.folder} holds {found}.\n"
        "  Expected tokenizer.json with a byte-level BPE, or tokenizer.model of SentencePiece.\n"
        "  Put the model's tokenizer files beside its weights."
    )


def _byte_level(checkpoint: Checkpoint, tokenizer: dict[str, Any], rows: int) -> Vocabulary:
    kinds = gguf_package().TokenType
    texts = {index: text for text, index in tokenizer["model"]["vocab"].items()}
    types = dict.fromkeys(texts, int(kinds.NORMAL))
    for added in tokenizer.get("added_tokens") or []:
        texts[added["id"]] = added["content"]
        types[added["id"]] = int(kinds.CONTROL if added.get("special") else kinds.USER_DEFINED)
    name, doubts = pre_tokenizer_name(tokenizer)
    special = _special(checkpoint, rows, merges=True)
    special.add_special_token.setdefault("bos", False)
    return Vocabulary(
        "gpt2",
        name,
        _filled(texts, rows, checkpoint),
        [types.get(index, int(kinds.UNUSED)) for index in range(rows)],
        None,
        None,
        special,
        (*doubts, *_end_in_doubt(special)),
    )


def _sentencepiece(checkpoint: Checkpoint, tokenizer: dict[str, Any], rows: int) -> Vocabulary:
    from sentencepiece import sentencepiece_model_pb2

    gguf = gguf_package()
    messages: Any = sentencepiece_model_pb2  # its classes are made at run time
    proto = messages.ModelProto.FromString((checkpoint.folder / "tokenizer.model").read_bytes())
    if proto.trainer_spec.model_type != proto.trainer_spec.BPE:
        raise CheckpointError(
            f"{checkpoint.folder / 'tokenizer.model'} is a SentencePiece model, but not of BPE.\n"
            "  llama.cpp merges pieces by their scores in these families, which is BPE.\n"
            "  Use llama.cpp's own convert_hf_to_gguf.py."
        )
    pieces = list(gguf.SentencePieceVocab(checkpoint.folder).all_tokens())
    texts = {index: text.decode("utf-8") for index, (text, _, _) in enumerate(pieces)}
    scores = {index: score for index, (_, score, _) in enumerate(pieces)}
    types = {index: int(kind) for index, (_, _, kind) in enumerate(pieces)}
    return _scored(checkpoint, tokenizer, rows, texts, scores, types, proto.normalizer_spec.add_dummy_prefix)


def _from_merges(checkpoint: Checkpoint, tokenizer: dict[str, Any], rows: int) -> Vocabulary:
    """SentencePiece's BPE as transformers converts it: the merges stand in the order of the scores it left out."""
    kinds = gguf_package().TokenType
    texts = {index: text for text, index in tokenizer["model"]["vocab"].items()}
    rank: dict[str, int] = {}
    for order, merge in enumerate(tokenizer["model"]["merges"]):
        rank.setdefault("".join(merge.split(" ") if isinstance(merge, str) else merge), order)
    scores = {index: -float(rank.get(text, 0)) for index, text in texts.items()}
    types = {
        index: int(kinds.BYTE if re.fullmatch("<0x[0-9A-F]{2}>", text) else kinds.NORMAL)
        for index, text in texts.items()
    }
    steps = json.dumps([tokenizer.get("normalizer"), tokenizer.get("pre_tokenizer")], ensure_ascii=False)
    prefix = '"Prepend"' in steps or ('"Metaspace"' in steps and '"never"' not in steps)
    return _scored(checkpoint, tokenizer, rows, texts, scores, types, prefix)


def _scored(
    checkpoint: Checkpoint,
    tokenizer: dict[str, Any],
    rows: int,
    texts: dict[int, str],
    scores: dict[int, float],
    types: dict[int, int],
    prefix: bool,
) -> Vocabulary:
    """A `llama` vocabulary with what transformers added to it."""
    kinds = gguf_package().TokenType
    config = _json(checkpoint, "tokenizer_config.json")
    listed = {int(index): token for index, token in (config.get("added_tokens_decoder") or {}).items()}
    for index, token in ({t["id"]: t for t in tokenizer.get("added_tokens") or []} | listed).items():
        if types.get(index, kinds.NORMAL) in (kinds.NORMAL, kinds.USER_DEFINED):
            texts[index], scores[index] = token["content"], ADDED_SCORE
            types[index] = int(kinds.CONTROL if token.get("special") else kinds.USER_DEFINED)
    special = _special(checkpoint, rows, merges=False)
    special.add_special_token.setdefault("bos", True)  # transformers' default for such tokenizers
    said = config.get("add_prefix_space")
    return Vocabulary(
        "llama",
        "default",
        _filled(texts, rows, checkpoint),
        [types.get(index, int(kinds.UNUSED)) for index in range(rows)],
        [scores.get(index, ADDED_SCORE) for index in range(rows)],
        said if isinstance(said, bool) else prefix,
        special,
        _end_in_doubt(special),
    )


def pre_tokenizer_name(tokenizer: dict[str, Any]) -> tuple[str, tuple[str, ...]]:
    """llama.cpp's name for how tokenizer.json splits text before merging, and doubts where it may split otherwise."""
    node = tokenizer.get("pre_tokenizer") or {}
    steps = [_step(one) for one in node.get("pretokenizers", [node] if node else [])]
    known = tuple(step for step in steps if step)
    ignore_merges = bool(tokenizer["model"].get("ignore_merges"))
    name = _PRE_TOKENIZERS.get((known, ignore_merges))
    doubts = []
    if name is None:
        name = _PRE_TOKENIZERS.get((known, not ignore_merges), FALLBACK)
        doubts.append(
            f"llama.cpp has no name for this tokenizer's splits ({' then '.join(known) or 'none'}, ignore_merges "
            f"{str(ignore_merges).lower()}); {name} was written. Texts may get other tokens there, and with them worse "
            "predictions: compare its tokens with transformers' on your texts, or pass token ids."
        )
    if any(one.get("add_prefix_space") for one in node.get("pretokenizers", [node])):
        doubts.append("this tokenizer puts a space before every text; llama.cpp does not. Put it there yourself.")
    if tokenizer.get("normalizer"):
        kind = tokenizer["normalizer"].get("type")
        doubts.append(
            f"this tokenizer normalizes texts ({kind}); llama.cpp does not. Texts in that form are not affected."
        )
    return name, tuple(doubts)


def _step(node: dict[str, Any]) -> str | None:
    """A pattern, or the name of a step; None for one that splits nothing."""
    kind = node.get("type")
    if kind == "Split" and node.get("behavior") == "Isolated" and not node.get("invert"):
        return node["pattern"].get("Regex") or repr(node["pattern"].get("String"))
    if kind == "ByteLevel":
        return _GPT2 if node.get("use_regex", True) else None
    if kind == "Digits" and not node.get("individual_digits"):
        return "Digits together"
    return str(kind)


def _special(checkpoint: Checkpoint, rows: int, *, merges: bool) -> Any:
    """Ids, flags, merges and template as the gguf package gathers them; an id from config.json's list where it has none."""
    logger = logging.getLogger("gguf.vocab")
    level = logger.level
    logger.setLevel(logging.ERROR)  # it warns of templates for pairs of texts, which have no part here
    try:
        special = gguf_package().SpecialVocab(checkpoint.folder, load_merges=merges, n_vocab=rows)
    finally:
        logger.setLevel(level)
    several = checkpoint.config.get("eos_token_id")
    if "eos" not in special.special_token_ids and isinstance(several, list) and several:
        special.special_token_ids["eos"] = several[0]
    if "bos" not in special.special_token_ids:  # llama.cpp would put its own default, token 11 or 1
        special.add_special_token["bos"] = False
    special.add_special_token.setdefault("eos", False)
    return special


def _end_in_doubt(special: Any) -> tuple[str, ...]:
    if "eos" in special.special_token_ids:
        return ()
    return ("no end-of-text token is named in the folder; llama.cpp then takes one by its own default.",)


def _filled(texts: dict[int, str], rows: int, checkpoint: Checkpoint) -> list[str]:
    """`rows` tokens in order of their ids. llama.cpp asks for as many as embeddings, all different."""
    if max(texts) >= rows:
        raise CheckpointError(
            f"the tokenizer in {checkpoint.folder} has a token {max(texts)}, and there are {rows} embeddings.\n"
            "  Each token needs one.\n"
            "  Use the tokenizer that belongs to these weights."
        )
    tokens = [texts.get(index, f"[PAD{index}]") for index in range(rows)]
    if len(set(tokens)) != rows:
        twice = Counter(tokens).most_common(1)[0][0]
        raise CheckpointError(
            f"the tokenizer in {checkpoint.folder} has the token {twice!r} twice.\n"
            "  llama.cpp stops at such a file.\n"
            "  Mend tokenizer.json."
        )
    return tokens


def _json(checkpoint: Checkpoint, name: str) -> dict[str, Any]:
    path = checkpoint.folder / name
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
