"""A base's tokenizer: tokenizer.json as it stands, older vocabulary files converted.

Training encodes with it and a bundle ships it, so that both mean the same ids.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import AutoTokenizer

from edgeprefix.base.quiet import first_line, quiet_transformers
from edgeprefix.runtime.contracts.files import read_json
from edgeprefix.runtime.contracts.tokenizer_rules import within_vocabulary
from edgeprefix.runtime.errors import BundleError, CheckpointError

TOKENIZER_FILE = "tokenizer.json"
_OLDER_FILES = (
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
)
_SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token")


def load_tokenizer(folder: Path) -> Tokenizer | None:
    """The tokenizer of a checkpoint, None when it has none.

    Raises CheckpointError when it cannot be read or converted, saying what to do.
    """
    file = folder / TOKENIZER_FILE
    if file.is_file():
        try:
            return Tokenizer.from_file(str(file))
        except Exception as error:  # tokenizers raises no other kind
            raise CheckpointError(
                f"{file} cannot be read: {first_line(error)}; download or save it again"
            ) from error
    older = next((name for name in _OLDER_FILES if (folder / name).is_file()), None)
    return None if older is None else _converted(folder, older)


def _converted(folder: Path, older: str) -> Tokenizer:
    with quiet_transformers():
        try:
            loaded: Any = AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
            return Tokenizer.from_str(loaded.backend_tokenizer.to_str())
        except Exception as error:  # its readers of old formats raise what they like
            raise CheckpointError(
                f"{folder} has {older} and no {TOKENIZER_FILE}, and transformers cannot convert "
                f"the one into the other here ({first_line(error)}); {_remedy(older)}"
            ) from error


def _remedy(older: str) -> str:
    install = "pip install sentencepiece protobuf" if older.endswith(".model") else ""
    return (
        (f"type `{install}` and try again, or " if install else "")
        + f"take {TOKENIZER_FILE} from the model's page on the hub, or where its tokenizer works: "
        'python -c "from transformers import AutoTokenizer; '
        "AutoTokenizer.from_pretrained('FOLDER').save_pretrained('FOLDER')\""
    )


def fitted(tokenizer: Tokenizer, rows: int, *, name: str) -> Tokenizer:
    """The tokenizer without added tokens that an embedding of `rows` has no row for, as the runtime
    has it (Gemma 3 declares one for images that its text models lack); with a warning.

    Raises CheckpointError when the vocabulary itself goes beyond the embedding, or when a token
    that the tokenizer adds to every text does.
    """
    try:
        return within_vocabulary(tokenizer, rows)
    except BundleError as error:
        size = max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1
        raise CheckpointError(
            f"base {name}: its tokenizer knows {size:,} ids, its embedding has {rows:,} rows; they "
            "do not belong together: take the tokenizer of this very model, or resize the model "
            "(resize_token_embeddings) and save it again"
        ) from error


def special_tokens(folder: Path) -> dict[str, str]:
    """The texts of the tokenizer's special tokens (bos_token, eos_token, …), as its files name
    them.
    """
    found: dict[str, str] = {}
    for file in ("special_tokens_map.json", "tokenizer_config.json"):  # the later one decides
        facts = optional_json(folder / file)
        for name in _SPECIAL_TOKENS:
            text = facts.get(name)
            text = text.get("content") if isinstance(text, dict) else text
            if isinstance(text, str):
                found[name] = encodable(text, f"{folder / file}: {name}")
    return found


def encodable(text: str, where: str) -> str:
    """A text of a JSON file that is one. Raises CheckpointError for half a character (\\ud83d)."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise CheckpointError(f"{where} is no text: {error}; correct the file") from error
    return text


def optional_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file, {} when there is none. Raises CheckpointError when it cannot be
    read.
    """
    if not path.is_file():
        return {}
    content = read_json(path, CheckpointError, missing=f"{path} is missing")
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds {type(content).__name__}, expected a JSON object")
    return content
