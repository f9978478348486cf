"""Small English grammar: articles, joining, capitals, numbers in words, plurals."""

from collections.abc import Sequence


def _split(text: str) -> tuple[str, ...]:
    """Split at blanks; a dash stands for the empty string."""
    return tuple(part.strip("-") for part in text.split())


_ONES = _split("""
zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
seventeen eighteen nineteen""")
_TENS = _split("""
_ _ twenty thirty forty fifty sixty seventy eighty ninety""")
_AN_EXCEPTIONS = ("hour", "honest", "heir", "8", "11 ", "18 ", "80")
_A_EXCEPTIONS = ("uni", "use", "euro", "one", "once", "ukul", "ut")


def article(phrase: str) -> str:
    """Return `phrase` with "a" or "an" before it."""
    low = phrase.lower()
    vowel = (low[:1] in "aeiou" and not low.startswith(_A_EXCEPTIONS)) or low.startswith(
        _AN_EXCEPTIONS
    )
    return f"{'an' if vowel else 'a'} {phrase}"


def join(parts: Sequence[str], word: str = "and") -> str:
    """Join as in a sentence: "a", "a and b", "a, b and c"."""
    if len(parts) < 2:
        return "".join(parts)
    return f"{', '.join(parts[:-1])} {word} {parts[-1]}"


def capital(text: str) -> str:
    """Return `text` with its first letter in upper case, the rest untouched."""
    return text[:1].upper() + text[1:]


def uncapital(text: str) -> str:
    """Return `text` with its first letter in lower case, the rest untouched."""
    return text[:1].lower() + text[1:]


def sentence(text: str, end: str = ".") -> str:
    """Return `text` as a sentence: capital letter, one closing mark."""
    text = capital(text.strip())
    return text if text[-1:] in ".!?" else text + end


def number_words(number: int) -> str:
    """Spell out a whole number from 0 to 9,999."""
    if number < 20:
        return _ONES[number]
    if number < 100:
        rest = f"-{_ONES[number % 10]}" if number % 10 else ""
        return _TENS[number // 10] + rest
    if number < 1000:
        rest = f" and {number_words(number % 100)}" if number % 100 else ""
        return f"{_ONES[number // 100]} hundred{rest}"
    rest = f" {number_words(number % 1000)}" if number % 1000 else ""
    return f"{number_words(number // 1000)} thousand{rest}"


def ordinal(number: int) -> str:
    """Return 1st, 2nd, 3rd, 4th and so on."""
    if 10 <= number % 100 <= 20:
        return f"{number}th"
    ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def plural(noun: str) -> str:
    """Return the regular plural of `noun`."""
    if noun.endswith(("s", "x", "ch", "sh")):
        return noun + "es"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + "s"
