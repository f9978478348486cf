"""Text in which special tokens count where its author wrote them, and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence

Span = tuple[int, int]
"""First character and the one behind the last."""


class TemplateText(str):
    """A text that knows which of its characters a template wrote. In those special tokens count; in
    the others, which users bring, they are letters like any.

    `TemplateText("<s>…")` is the template's throughout: so says who wrote the special tokens of a
    text himself. What is cut out of it or joined to it with the means of `str` is an ordinary text,
    in which no special token counts.

    >>> text = TemplateText("<|user|>hello<|user|>", own=[(0, 8)])
    >>> text.writes(0, 8), text.writes(13, 21)
    (True, False)
    """

    own: tuple[Span, ...]
    """Pieces that the template wrote, each in one go."""
    source: str
    """The template. Added tokens that it uses count as special ones, too."""
    complete: bool
    """Whether it begins and ends as the base wants it, so that encoding puts nothing around it."""

    def __new__(
        cls,
        text: str,
        own: Sequence[Span] | None = None,
        *,
        source: str | None = None,
        complete: bool = False,
    ) -> TemplateText:
        made = super().__new__(cls, text)
        made.own = ((0, len(text)),) if own is None else tuple(own)
        made.source = str(text) if source is None else source
        made.complete = complete
        return made

    def writes(self, start: int, end: int) -> bool:
        """Whether the template wrote all characters from `start` to before `end` in one go."""
        return any(first <= start and end <= last for first, last in self.own)

    def cut(self, start: int, end: int | None = None) -> TemplateText:
        """The characters from `start` to before `end`, still knowing who wrote them."""
        end = len(self) if end is None else end
        own = [
            (max(first, start) - start, min(last, end) - start)
            for first, last in self.own
            if first < end and last > start
        ]
        return TemplateText(
            str(self)[start:end], own, source=self.source, complete=self.complete and start == 0
        )
