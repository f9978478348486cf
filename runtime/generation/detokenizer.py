"""Tokens to text while they come: never half a character, and no stop text.

The concatenation of all pieces equals decoding all tokens at once, cut before the first stop text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from edgeprefix.runtime.contracts.tokenizer import TextTokenizer
from edgeprefix.runtime.generation.stop_texts import StopTexts

_INCOMPLETE = "\ufffd"
_BYTE_TOKEN = re.compile(r"<0x[0-9A-Fa-f]{2}>")


class Detokenizer:
    """Text pieces of one sequence of tokens.

    A window of the last tokens is decoded with and without the newest one, and the difference is
    new text. So each token costs the same however long the text is, and a decoder that treats the
    first token in its own way (dropping its space) does not err. Byte tokens (`<0xE2>`) wait for
    the end of their run: one bad byte later on turns the whole run into replacement characters.
    """

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self._tokenizer = tokenizer
        self._tokens: list[int] = []
        self._start = 0  # of the window
        self._given = 0  # tokens whose text is out
        self._text_length = 0  # characters that are out

    def add(self, token: int) -> str:
        """The text that this token completes; empty while a character is unfinished."""
        self._tokens.append(token)
        before = self._tokenizer.decode(self._tokens[self._start : self._given])
        now = self._tokenizer.decode(self._tokens[self._start :])
        if now.endswith(_INCOMPLETE) or not now.startswith(before) or self._is_byte(token):
            return ""
        self._start, self._given = self._given, len(self._tokens)
        return self._out(now[len(before) :])

    def finish(self) -> str:
        """What was held back, incomplete characters as the replacement character."""
        return self._out(self._tokenizer.decode(self._tokens)[self._text_length :])

    def _is_byte(self, token: int) -> bool:
        return _BYTE_TOKEN.fullmatch(self._tokenizer.token_text(token) or "") is not None

    def _out(self, text: str) -> str:
        self._text_length += len(text)
        return text


class StopFilter:
    """Passes text on until a stop text appears, holding back what may become one."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.found: str | None = None

    def add(self, text: str) -> str:
        """The text that is certainly before any stop text."""
        self._held += text
        places = [(place, stop) for stop in self._stops if (place := self._held.find(stop)) >= 0]
        if places:
            place, self.found = min(places)
            return self._take(place)
        return self._take(len(self._held) - self._possible_beginning())

    def finish(self) -> str:
        """What was held back and never became a stop text."""
        return "" if self.found is not None else self._take(len(self._held))

    def _take(self, count: int) -> str:
        text, self._held = self._held[:count], self._held[count:]
        return text

    def _possible_beginning(self) -> int:
        """Length of the longest end of the held text with which a stop text begins."""
        longest = max((len(stop) - 1 for stop in self._stops), default=0)
        for size in range(min(longest, len(self._held)), 0, -1):
            if any(stop.startswith(self._held[-size:]) for stop in self._stops):
                return size
        return 0


class TextStream:
    """Detokenizer and stop filter in a row."""

    def __init__(self, tokenizer: TextTokenizer, stops: Sequence[str] = ()) -> None:
        self._detokenizer = Detokenizer(tokenizer)
        self._stops = StopTexts(stops, tokenizer.special_tokens if stops else {})
        self._filter = StopFilter(self._stops.texts)
        self.text = ""
        """All text that is out."""

    @property
    def stopped(self) -> bool:
        """Whether a stop text appeared."""
        return self._filter.found is not None

    def add(self, token: int) -> str:
        """The text that this token lets out."""
        text = self._detokenizer.add(token) + self._stops.marks.get(token, "")
        piece = self._stops.unmarked(self._filter.add(text))
        self.text += piece
        return piece

    def finish(self) -> str:
        """The rest of the text."""
        piece = (
            self._filter.add(self._detokenizer.finish()) + self._filter.finish()
            if not self.stopped
            else ""
        )
        piece = self._stops.unmarked(piece)
        self.text += piece
        return piece
