"""Texts that must not appear, looked for in the decoded text: a tokenizer spells a word in many
ways, and a base may choose any of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence


class BannedTexts:
    """Knows whether a token would complete one of `texts`. `decode` makes text of tokens."""

    def __init__(self, texts: Sequence[str], decode: Callable[[Sequence[int]], str]) -> None:
        self._texts, self._decode = tuple(texts), decode
        # One more, since a decoder may drop the space that a window begins with
        self._reach = max(map(len, self._texts)) + 1

    def completed_by(self, tokens: Sequence[int], token: int) -> bool:
        """Whether the text of `tokens`, which has none of them, gets one by `token`."""
        text = self._decode([*self._last(tokens), token])
        return any(banned in text for banned in self._texts)

    def _last(self, tokens: Sequence[int]) -> Sequence[int]:
        """So many of the last tokens that a banned text which ends behind them begins in their
        text; nearly always one character a token is enough.
        """
        count = self._reach
        while count < len(tokens) and len(self._decode(tokens[-count:])) < self._reach:
            count *= 2
        return tokens[-count:]
