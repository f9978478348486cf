"""Made-up names and small English grammar for the three tasks."""

from __future__ import annotations

from random import Random


def lines(text: str) -> tuple[str, ...]:
    """The non-empty lines of a block, stripped."""
    return tuple(line.strip() for line in text.strip().splitlines() if line.strip())


def items(text: str) -> tuple[str, ...]:
    """The comma-separated items of a block, stripped."""
    return tuple(part.strip() for part in text.replace("\n", " ").split(",") if part.strip())


_STARTS = items("""
    Al, An, Ar, As, Bar, Bel, Ber, Bra, Cal, Can, Car, Col, Dal, Dar, Del, Dor, Ed, El, Er, Fal, Far, Fen, Gal,
    Gar, Gil, Hal, Har, Hel, Hol, Is, Jar, Kel, Ken, Kir, Lan, Lar, Len, Lin, Lor, Mal, Mar, Mel, Mer, Mil, Mor,
    Nel, Nor, Ol, Or, Pal, Par, Pel, Per, Ral, Ran, Ros, Ru, Sal, San, Sel, Sil, Sor, Tal, Tam, Tar, Tel, Tor, Ul,
    Val, Var, Ven, Vil, Wal, War, Wel, Win, Yar, Zel""")
_MIDDLES = items("a, e, i, o, u, an, en, in, on, or, ar, er, il, el")
_ENDS = items("""
    bek, dan, den, der, din, dor, fin, gan, gen, kin, lan, len, lin, lo, man, mer, mi, na, nen, nis, ra, ran, ren,
    ro, sen, so, ta, tan, ten, va, ven, vo""")


def made_up(rng: Random) -> str:
    """A pronounceable name of two or three syllables: "Bardin", "Melaro"."""
    middle = rng.choice(_MIDDLES) if rng.random() < 0.4 else ""
    return rng.choice(_STARTS) + middle + rng.choice(_ENDS)


def article(phrase: str) -> str:
    """`phrase` with "a" or "an" before it, by its first letter or by how its first number
    is said.
    """
    vowel = phrase[:1].lower() in "aeiou" or phrase.startswith(("8", "11 ", "18 "))
    return f"{'an' if vowel and not phrase.startswith(('one', 'use')) else 'a'} {phrase}"


def capital(text: str) -> str:
    """`text` with its first letter in upper case."""
    return text[:1].upper() + text[1:]
