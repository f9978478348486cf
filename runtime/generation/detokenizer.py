"""Tokens to text while they come: never half a character, and no stop text.

The concatenation of all pieces equals decoding all tokens at once, cut before the first stop text.
"""

from __future__ import annotations

from collections.abc import Sequence

from edgeprefix.runtime.contracts.tokenizer import TextTokenizer
from edgeprefix.runtime.generation.stop_texts import StopTexts

_INCOMPLETE = "\ufffd"
_CONTEXT = 4  # tokens; UTF-8 needs no more than three bytes to know where a character ends
_WINDOW = 3 * _CONTEXT


class Detokenizer:
    """Text pieces of one sequence of tokens.

    Only the last tokens are decoded, so that each costs the same however long the text is. Why that
    gives the whole text: tokens that decoding leaves out are left out first, hence what a decoder
    does to neighbours it does here too. Of what is left a decoder treats the first token in its own
    way (it drops a space), and the window's first ones are text that is out already. The last
    character may be unfinished, which shows as U+FFFD and waits for the next token. A run of byte
    tokens (`<0xE2>`) waits for its end, since one bad byte later on turns all of it into U+FFFD; no
    window begins within one. A decoder for which this does not hold gives its text at the end.
    """

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self._tokenizer = tokenizer
        self._window: list[int] = []
        self._given = 0  # characters of the window's text that are out

    def add(self, token: int) -> str:
        """The text that this token completes; empty while a character is unfinished."""
        if self._tokenizer.is_left_out(token):
            return ""
        self._window.append(token)
        if not self._tokenizer.decodes_in_order or self._tokenizer.is_byte(token):
            return ""
        text = self._tokenizer.decode(self._window)
        piece = self._out(text, len(text) - text.endswith(_INCOMPLETE))
        if len(self._window) > _WINDOW:
            self._shorten(len(text) - self._given)
        return piece

    def finish(self) -> str:
        """What was held back, incomplete characters as the replacement character."""
        text = self._tokenizer.decode(self._window)
        return self._out(text, len(text))

    def _out(self, text: str, end: int) -> str:
        piece, self._given = text[self._given : end], max(self._given, end)
        return piece

    def _shorten(self, held: int) -> None:
        """Keeps the last tokens alone; `held` characters of their text are not out."""
        start = len(self._window) - _CONTEXT
        while start > 0 and self._tokenizer.is_byte(self._window[start]):
            start -= 1
        last = self._window[start:]
        text = self._tokenizer.decode(last)
        # Without a text a decoder would still be at the beginning; an empty token has no byte
        if text and all(map(self._tokenizer.token_text, last)):
            self._window, self._given = last, len(text) - held


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
