"""Stop texts, special tokens in them included.

Decoding leaves special tokens out, so `stop=["<|im_end|>"]` would never be found in a text. Here
each special token that a stop text names gets a mark, half a surrogate pair, which no decoded text
has; a stop text is looked for with its marks as well as to the letter. Special tokens that no stop
text names are not there, as in the result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence


class StopTexts:
    """`texts` as a caller gave them; `special` are the ids of the tokenizer's special tokens by
    name.
    """

    def __init__(self, texts: Sequence[str], special: Mapping[str, int]) -> None:
        names = sorted(
            (name for name in special if any(name in text for text in texts)), key=len, reverse=True
        )
        signs = {name: chr(0xD800 + number) for number, name in enumerate(names)}
        self.marks: Mapping[int, str] = {special[name]: sign for name, sign in signs.items()}
        """The mark of a token, by id."""
        self.texts = tuple(dict.fromkeys((*texts, *(_marked(text, signs) for text in texts))))
        """What to look for in a text with marks."""
        self._without = str.maketrans(dict.fromkeys(signs.values(), ""))

    def unmarked(self, text: str) -> str:
        """A text without its marks."""
        return text.translate(self._without) if self.marks else text

    def cut(self, tokens: Sequence[int], decode: Callable[[Sequence[int]], str]) -> str | None:
        """The text of tokens up to the first stop text; None when none is there."""
        if not self.texts:
            return None
        text = decode(tokens)
        for place in (at for at in reversed(range(len(tokens))) if tokens[at] in self.marks):
            before = len(decode(tokens[:place]))
            text = text[:before] + self.marks[tokens[place]] + text[before:]
        places = [at for stop in self.texts if (at := text.find(stop)) >= 0]
        return self.unmarked(text[: min(places)]) if places else None


def _marked(text: str, signs: Mapping[str, str]) -> str:
    for name, sign in signs.items():
        text = text.replace(name, sign)
    return text
