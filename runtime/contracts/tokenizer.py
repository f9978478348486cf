"""The one way from text to token ids, for training and for running.

Prompt and target are encoded apart: the prompt with the tokenizer's own special tokens (a BOS,
say), the target without them and followed by the end-of-text token. So the runtime, which meets
only the prompt, gets the very ids that training saw.

Special tokens in a text are letters like any, since whoever writes a text must not write control
tokens with it. They count where a template wrote them (template_text.py).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from tokenizers import AddedToken, Encoding, Tokenizer

from edgeprefix.runtime.contracts.template_text import Span, TemplateText
from edgeprefix.runtime.contracts.tokenizer_rules import (
    decodes_in_order,
    within_vocabulary,
    without_dummy_space,
)
from edgeprefix.runtime.errors import BundleError, RequestError

T = TypeVar("T")

_BYTE_TOKEN = re.compile(r"<0x[+0-9A-Fa-f][0-9A-Fa-f]>")  # the library takes <0x+F>, too


class TextTokenizer:
    """Wraps a `tokenizers.Tokenizer` with edgeprefix's rules.

    `end_ids` are the ids that end a text; the first of them closes a training target. `vocabulary`
    is the number of ids that the base knows: no text is encoded to others. Raises BundleError when
    the tokenizer's vocabulary is larger.
    """

    def __init__(
        self, tokenizer: Tokenizer, *, end_ids: Sequence[int], vocabulary: int | None = None
    ) -> None:
        # A copy: truncation and padding that a checkpoint's file asks for would silently change
        # prompts.
        self._tokenizer = Tokenizer.from_str(tokenizer.to_str())
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._vocabulary = vocabulary
        if vocabulary is not None:
            self._tokenizer = within_vocabulary(self._tokenizer, vocabulary)
        self.end_ids = tuple(
            token for token in end_ids if vocabulary is None or 0 <= token < vocabulary
        )
        self._added = self._tokenizer.get_added_tokens_decoder()
        self._special = frozenset(token for token, added in self._added.items() if added.special)
        self._unknown = _unknown_ids(self._tokenizer) & self._special
        self._control = functools.lru_cache(maxsize=64)(
            functools.partial(_control_ids, self._added, self._special)
        )
        self.decodes_in_order = decodes_in_order(self._tokenizer)
        """Whether tokens can be decoded as they come (tokenizer_rules.py)."""

    @classmethod
    def from_file(
        cls, path: str | Path, *, end_ids: Sequence[int], vocabulary: int | None = None
    ) -> TextTokenizer:
        """Reads a tokenizer.json. Raises BundleError when it cannot be read, or is of another base
        than one of so many ids.
        """
        try:
            read = Tokenizer.from_file(str(path))
        except (
            Exception
        ) as error:  # the library raises bare Exception for a missing or damaged file
            raise BundleError(
                f"{path} is no readable tokenizer.json: {error}; export the bundle again"
            ) from error
        return cls(read, end_ids=end_ids, vocabulary=vocabulary)

    @property
    def vocabulary_size(self) -> int:
        """Number of ids, added tokens included."""
        return self._tokenizer.get_vocab_size(with_added_tokens=True)

    @functools.cached_property
    def special_tokens(self) -> Mapping[str, int]:
        """Ids of the special tokens, which decoding leaves out, by their text."""
        return {entry.content: token for token, entry in self._added.items() if entry.special}

    @functools.cached_property
    def unnamed(self) -> frozenset[int]:
        """The base's ids that stand for no text and end none: an embedding is often padded to a
        round number of rows.
        """
        count = self._vocabulary or 0
        if self.vocabulary_size == count:  # as many entries as ids, and none of them beyond
            return frozenset()
        named = self._tokenizer.id_to_token
        without = (token for token in range(count) if named(token) is None)
        return frozenset(without) - frozenset(self.end_ids)

    def control_tokens(self, source: str) -> tuple[str, ...]:
        """The texts that are control tokens where the template `source` writes them: all special
        tokens, and the added ones that it uses, but for white space.
        """
        return tuple(self._added[token].content for token in self._control(source))

    def encode_prompt(self, text: str) -> list[int]:
        """Ids of a prompt, with the tokenizer's own special tokens around it. A begin token that a
        template writes itself is not doubled.
        """
        return self._encode(text, self._tokenizer, around=True)

    def encode_target(self, text: str) -> list[int]:
        """Ids of a target or label, closed by the end-of-text id (when the base has one)."""
        return self.encode_piece(text) + list(self.end_ids[:1])

    def encode_piece(self, text: str) -> list[int]:
        """Ids of a text by itself, nothing added around it."""
        return self._encode(text, self._tokenizer)

    def encode_behind(self, text: str) -> list[int]:
        """Ids of a text that goes on right behind another one: nothing is added, and no space put
        before it, as sentencepiece does with a text by itself.
        """
        return self._encode(text, self._behind)

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """Text of ids; incomplete UTF-8 comes out as the replacement character."""
        return str(
            _called(
                lambda: self._tokenizer.decode(list(ids), skip_special_tokens=skip_special_tokens)
            )
        )

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

    @functools.cached_property
    def _behind(self) -> Tokenizer:
        return without_dummy_space(self._tokenizer)

    def _encode(self, text: str, tokenizer: Tokenizer, *, around: bool = False) -> list[int]:
        around = around and not (isinstance(text, TemplateText) and text.complete)
        found = _called(lambda: tokenizer.encode(str(text), add_special_tokens=around))
        control = self._control(text.source if isinstance(text, TemplateText) else None)
        ids: list[int]
        if inert := list(self._inert(text, found, control)):
            ids = self._apart(text, inert, control, tokenizer)
        elif tokenizer is not self._tokenizer and (added := self._first_added(found)) is not None:
            # Behind an added token stands what the tokenizer puts behind one
            place, start = added
            ids = found.ids[:place] + self._encode(_cut(text, start), self._tokenizer)
        elif not around:
            ids = found.ids
        else:
            pairs = zip(found.ids, found.special_tokens_mask, strict=True)
            ids = [token for token, extra in pairs if not extra]
        return _surrounded(ids, found) if around else ids

    def _inert(self, text: str, found: Encoding, control: frozenset[int]) -> Iterator[Span]:
        """Where control tokens were found that no template wrote."""
        if control.isdisjoint(found.ids):
            return
        for token, extra, (start, end) in zip(
            found.ids, found.special_tokens_mask, found.offsets, strict=True
        ):
            if extra or token not in control:
                continue
            spelled = str(text)[start:end]
            start, end = end - len(spelled.lstrip()), start + len(spelled.rstrip())
            if token in self._unknown and spelled.strip() != self.token_text(token):
                continue  # not the token's own name but a text that the vocabulary lacks
            if not (isinstance(text, TemplateText) and text.writes(start, end)):
                yield start, end

    def _apart(
        self, text: str, inert: Sequence[Span], control: frozenset[int], tokenizer: Tokenizer
    ) -> list[int]:
        """Ids of a text whose `inert` pieces are encoded without added tokens."""
        ids: list[int] = []
        place = 0
        for start, end in [*inert, (len(text), len(text))]:
            if start > place:
                piece = _cut(text, place, start)
                ids += self._encode(piece, self._behind if place else tokenizer)
            if end > start:
                piece = str(text)[start:end]
                ids += self._letters(piece, control, self._behind if start else tokenizer)
            place = end
        return ids

    def _letters(self, text: str, control: frozenset[int], tokenizer: Tokenizer) -> list[int]:
        """Ids of a control token's name as plain text. Raises RequestError when there are none."""
        ids = _without_added(tokenizer, text)
        if not control.isdisjoint(ids):  # it is an entry of the model as well
            ids = _without_added(tokenizer, text[:1])
            ids += [token for one in text[1:] for token in _without_added(self._behind, one)]
        if not text or not (control - self._unknown).isdisjoint(ids):
            raise RequestError(
                f"{text!r} in a text can only be encoded as the control token that it names; leave "
                "it out, or write it in the prompt template if it is meant"
            )
        return ids

    def _first_added(self, found: Encoding) -> Span | None:
        """(index, first character) of the first added token; None when there is none."""
        return next(
            (
                (index, found.offsets[index][0])
                for index, token in enumerate(found.ids)
                if token in self._added
            ),
            None,
        )


def _control_ids(
    added: Mapping[int, AddedToken], special: frozenset[int], source: str | None
) -> frozenset[int]:
    """Special tokens, and added ones that the template `source` uses."""
    if source is None:
        return special
    return special | {
        token for token, one in added.items() if one.content.strip() and one.content in source
    }


def _cut(text: str, start: int, end: int | None = None) -> str:
    return text.cut(start, end) if isinstance(text, TemplateText) else text[start:end]


def _without_added(tokenizer: Tokenizer, text: str) -> list[int]:
    """Ids of a text in which no added token counts, special or not."""

    def encode() -> list[int]:
        normalizer, splitter = tokenizer.normalizer, tokenizer.pre_tokenizer
        plain = text if normalizer is None else normalizer.normalize_str(text)
        words = [plain] if splitter is None else [w for w, _ in splitter.pre_tokenize_str(plain)]
        return [token.id for word in words for token in tokenizer.model.tokenize(word)]

    return _called(encode)


def _unknown_ids(tokenizer: Tokenizer) -> frozenset[int]:
    """The id of what the model's vocabulary lacks, if it has one."""
    try:
        return frozenset(token.id for token in tokenizer.model.tokenize("\U0010ffff"))
    except Exception:  # a model without one says so in its own words
        return frozenset()


def _surrounded(ids: list[int], found: Encoding) -> list[int]:
    """Ids with the special tokens that the tokenizer put around the text, unless they stand there
    already.
    """
    extra = found.special_tokens_mask
    first = next((index for index, one in enumerate(extra) if not one), len(extra))
    last = next((index for index, one in enumerate(reversed(extra)) if not one), 0)
    before, after = found.ids[:first], found.ids[len(extra) - last :]
    return [
        *(before if ids[: len(before)] != before else ()),
        *ids,
        *(after if not after or ids[-len(after) :] != after else ()),
    ]


def _called(function: Callable[[], T]) -> T:
    """What the tokenizers library gives. Raises RequestError for what it raises, panics of its own
    too, which are no Exception.
    """
    try:
        return function()
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise RequestError(
            f"the base's tokenizer cannot take this: {error}; its tokenizer.json is damaged, or "
            "has no entry for unknown text"
        ) from error
