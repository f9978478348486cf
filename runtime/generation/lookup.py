"""Prompt-lookup speculation: what followed the last words when they stood in the prompt may well
follow again.

Useful where output copies input (extraction, rewriting). The base checks a whole draft in one run,
so a right guess of k tokens saves k steps, and the tokens stay those of greedy decoding.
https://github.com/apoorvumang/prompt-lookup-decoding Wrong guesses cost computing time, so drafts
begin short, double while they are right, and shrink to what was right of them.
"""

from __future__ import annotations

from collections.abc import Sequence

_NGRAMS = (3, 2)  # lengths of the match, longest first
_FIRST = 2  # tokens of the first draft


class PromptLookup:
    """Drafts over `prompt` of at most `size` tokens, none behind `limit` tokens in all."""

    def __init__(self, prompt: Sequence[int], size: int, limit: int) -> None:
        self._text = list(prompt)
        self._prompt_length, self._size, self._limit = len(prompt), size, limit
        self._followers: dict[tuple[int, ...], int] = {}
        """Where the text goes on after an n-gram: the latest place."""
        self._indexed = 0
        self._now = min(_FIRST, size)  # tokens of the next draft
        self._drafted = self._known = (
            0  # of the last draft: its length, and the generated tokens that there were
        )

    def __call__(self, tokens: Sequence[int]) -> Sequence[int]:
        """Likely next tokens after the generated `tokens`."""
        self._text.extend(tokens[len(self._text) - self._prompt_length :])
        self._adapt(len(tokens) - self._known - 1)
        left = self._limit - len(tokens) - 1
        draft: list[int] = []
        for size in _NGRAMS:
            place = self._followers.get(tuple(self._text[-size:]))
            if place is not None and not draft:
                draft = self._text[place : place + min(self._now, left)]
        self._index()
        self._drafted, self._known = len(draft), len(tokens)
        return draft

    def _adapt(self, right: int) -> None:
        """Learns from how many tokens of the last draft were right."""
        if self._drafted:
            self._now = min(self._size, 2 * self._now) if right >= self._drafted else max(1, right)

    def _index(self) -> None:
        """Remembers n-grams up to the end, whose own continuation is not known yet."""
        for end in range(self._indexed + 1, len(self._text) + 1):
            for size in _NGRAMS:
                if end >= size:
                    self._followers[tuple(self._text[end - size : end])] = end
        self._indexed = len(self._text)
