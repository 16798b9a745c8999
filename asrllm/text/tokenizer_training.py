"""Units of the CTC head, made from transcripts and kept in a folder, from where `text/tokenizer.py` loads them."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import Annotated, Literal

import pydantic
import sentencepiece

from asrllm.config import Config
from asrllm.console import UserError, write_atomically
from asrllm.text import phonemes
from asrllm.text.llm_tokenizer import LlmTokenizer
from asrllm.text.phonemes import PhonemeConfig
from asrllm.text.tokenizer import fewest_pieces

OOV_FILE = "oov.txt"  # of phonemes: words that no dictionary has, how often they occur, their phonemes


class CharacterConfig(Config):
    """Every character of the training text is a unit."""

    type: Literal["character"]


class SentencePieceConfig(Config):
    """A sentencepiece model of `size` pieces."""

    type: Literal["sentencepiece"]
    size: int = pydantic.Field(gt=2)
    algorithm: Literal["unigram", "bpe"] = "unigram"


class LlmSubsetConfig(Config):
    """The LLM's own tokens that occur in the training text.

    Tokens used fewer than `min_count` times are spelled with smaller tokens of the LLM, so that every unit is trained
    and words never heard can be written; single characters are always units.
    """

    type: Literal["llm_subset"]
    llm: str  # hub id or local folder of the LLM whose tokenizer is used
    min_count: int = pydantic.Field(default=1, ge=1)


TokenizerConfig = Annotated[
    CharacterConfig | SentencePieceConfig | LlmSubsetConfig | PhonemeConfig, pydantic.Field(discriminator="type")
]


class TokenizerFile(Config):
    """A tokenizer's YAML."""

    tokenizer: TokenizerConfig


def llm_subset(llm: LlmTokenizer, texts: Iterable[str], min_count: int) -> list[int]:
    """Ids of the LLM's tokens that spell the training text with no token rarer than `min_count` (ours).

    Starts from all tokens of the LLM inside the words of the text, spells each word with as few as possible, drops what
    is used but rare, and repeats until nothing is. Single characters of the text and of printable ASCII always stay,
    and so do tokens that are only a part of a character.
    """
    seen = Counter(llm_id for text in texts for llm_id in llm.encode_transcript(text))
    parts = {llm_id for llm_id in seen if llm_id not in llm.strings}
    words = Counter({llm.strings[llm_id]: count for llm_id, count in seen.items() if llm_id not in parts})
    always = {character for word in words for character in word} | {chr(code) for code in range(32, 127)}
    always = {character for character in always if character in llm.id_of_string}
    inside = {word[i:j] for word in words for i in range(len(word)) for j in range(i + 1, len(word) + 1)}
    pieces = {piece for piece in inside if piece in llm.id_of_string} | always
    while True:
        used: Counter[str] = Counter()
        for word, count in words.items():
            for piece in fewest_pieces(word, pieces) or ():
                used[piece] += count
        rare = {piece for piece in pieces if 0 < used[piece] < min_count} - always
        if not rare:
            return sorted(parts | {llm.id_of_string[piece] for piece in pieces if used[piece] or piece in always})
        pieces -= rare


def train(config: TokenizerConfig, texts: list[str], folder: Path) -> None:
    """Train a tokenizer on transcripts and keep it in `folder`, whole or not at all."""
    if not texts:
        raise UserError("no transcript to train the tokenizer on: the text file is empty")
    with write_atomically(folder) as temporary:
        temporary.mkdir()
        saved: dict[str, object] = {"type": config.type, "trained_on": _fingerprint(config, texts)}
        match config:
            case CharacterConfig():
                saved["characters"] = sorted({character for text in texts for character in text})
            case SentencePieceConfig():
                (temporary / "model.spm").write_bytes(_train_sentencepiece(config, texts))
            case LlmSubsetConfig():
                llm = LlmTokenizer(config.llm)
                llm.save(temporary / "llm")
                saved["llm_ids"] = llm_subset(llm, texts, config.min_count)
            case PhonemeConfig():
                saved |= config.model_dump() | {"phonemes": phonemes.inventory(config, texts)}
                unlisted = ["\t".join(map(str, row)) for row in phonemes.out_of_vocabulary(config, texts)]
                (temporary / OOV_FILE).write_text("".join(f"{row}\n" for row in unlisted), encoding="utf-8")
        (temporary / "tokenizer.json").write_text(json.dumps(saved, ensure_ascii=False) + "\n", encoding="utf-8")


def is_trained(folder: Path, config: TokenizerConfig, texts: list[str]) -> bool:
    """Whether `folder` holds the tokenizer of this configuration and text."""
    path = folder / "tokenizer.json"
    return path.is_file() and json.loads(path.read_text(encoding="utf-8")).get("trained_on") == _fingerprint(
        config, texts
    )


def read_transcripts(path: Path) -> list[str]:
    """Transcripts of a Kaldi `text`, ids left out."""
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file: run stage 2 (check and format) first") from None
    texts = []
    for number, line in enumerate(lines, 1):
        try:
            _, _, text = line.decode().partition(" ")
        except UnicodeDecodeError:
            raise UserError(f"{path}: line {number}: not UTF-8: run check_data on the data directory") from None
        if text.strip():
            texts.append(text.strip())
    return texts


def _fingerprint(config: Config, texts: list[str]) -> str:
    whole = "\n".join([config.model_dump_json(), *texts])
    return hashlib.sha256(whole.encode()).hexdigest()


def _train_sentencepiece(config: SentencePieceConfig, texts: list[str]) -> bytes:
    model = BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=model,
            vocab_size=config.size,
            model_type=config.algorithm,
            character_coverage=1.0,
            bos_id=-1,
            eos_id=-1,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise UserError(f"sentencepiece cannot make {config.size} pieces of this text: {error}") from None
    return model.getvalue()
