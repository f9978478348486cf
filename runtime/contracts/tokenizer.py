"""The one way from text to token ids, for training and for running.

Prompt and target are encoded apart: the prompt with the tokenizer's own special tokens (a BOS,
say), the target without them and followed by the end-of-text token. So the runtime, which meets
only the prompt, gets the very ids that training saw.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from tokenizers import Tokenizer

from edgeprefix.runtime.contracts.tokenizer_rules import decodes_in_order
from edgeprefix.runtime.errors import BundleError

_BYTE_TOKEN = re.compile(r"<0x[+0-9A-Fa-f][0-9A-Fa-f]>")  # the library takes <0x+F>, too


class TextTokenizer:
    """Wraps a `tokenizers.Tokenizer` with edgeprefix's rules.

    `end_ids` are the ids that end a text; the first of them closes a training target.
    """

    def __init__(self, tokenizer: Tokenizer, *, end_ids: Sequence[int]) -> None:
        # A copy: truncation and padding that a checkpoint's file asks for would silently change
        # prompts.
        self._tokenizer = Tokenizer.from_str(tokenizer.to_str())
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.end_ids = tuple(end_ids)
        self._special = frozenset(
            token
            for token, added in self._tokenizer.get_added_tokens_decoder().items()
            if added.special
        )
        self.decodes_in_order = decodes_in_order(self._tokenizer)
        """Whether tokens can be decoded as they come (tokenizer_rules.py)."""

    @classmethod
    def from_file(cls, path: str | Path, *, end_ids: Sequence[int]) -> TextTokenizer:
        """Reads a tokenizer.json. Raises BundleError when it cannot be read."""
        try:
            return cls(Tokenizer.from_file(str(path)), end_ids=end_ids)
        except (
            Exception
        ) as error:  # the library raises bare Exception for a missing or damaged file
            raise BundleError(
                f"{path} is no readable tokenizer.json: {error}; export the bundle again"
            ) from error

    @property
    def vocabulary_size(self) -> int:
        """Number of ids, added tokens included."""
        return self._tokenizer.get_vocab_size(with_added_tokens=True)

    @functools.cached_property
    def special_tokens(self) -> Mapping[str, int]:
        """Ids of the special tokens, which decoding leaves out, by their text."""
        added = self._tokenizer.get_added_tokens_decoder()
        return {entry.content: token for token, entry in added.items() if entry.special}

    def encode_prompt(self, text: str) -> list[int]:
        """Ids of a prompt, with the tokenizer's own special tokens around it."""
        return list(self._tokenizer.encode(text).ids)

    def encode_target(self, text: str) -> list[int]:
        """Ids of a target or label, closed by the end-of-text id (when the base has one)."""
        return self.encode_piece(text) + list(self.end_ids[:1])

    def encode_piece(self, text: str) -> list[int]:
        """Ids of a text that stands inside another: nothing is added."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """Text of ids; incomplete UTF-8 comes out as the replacement character."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=skip_special_tokens))

    def is_left_out(self, token: int) -> bool:
        """Whether decoding leaves the token out: a special one, or an id that nothing has."""
        return token in self._special or self._tokenizer.id_to_token(token) is None

    def is_byte(self, token: int) -> bool:
        """Whether the token stands for one byte (`<0xE2>`), as sentencepiece writes them."""
        return _BYTE_TOKEN.fullmatch(self.token_text(token) or "") is not None

    def token_text(self, token: int) -> str | None:
        """The vocabulary entry of an id (not its decoded text), None when the id is unknown."""
        entry = self._tokenizer.id_to_token(token)
        return None if entry is None else str(entry)

    def to_json(self) -> str:
        """The content of tokenizer.json."""
        return str(self._tokenizer.to_str())
