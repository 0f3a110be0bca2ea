"""Codes as people spell them: `code alpha seven four two` is A742, and back.

The words are the NATO alphabet and the digits as ICAO Annex 10 volume II gives them ("niner"), and as people say them
("oh" for zero). Pure functions, no state.
"""

from __future__ import annotations

from collections.abc import Sequence

LETTERS = (
    "alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel", "india", "juliett", "kilo", "lima",
    "mike", "november", "oscar", "papa", "quebec", "romeo", "sierra", "tango", "uniform", "victor", "whiskey", "xray",
    "yankee", "zulu",
)  # fmt: skip
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
ALIASES = {
    "alfa": "A", "juliet": "J", "x-ray": "X", "whisky": "W", "niner": "9", "oh": "0", "dash": "-", "hyphen": "-",
}  # fmt: skip
CODE_WORD = "code"  # announces a code; what follows is spelled

SYMBOLS = (
    {word: word[0].upper() for word in LETTERS} | {word: str(value) for value, word in enumerate(DIGITS)} | ALIASES
)


def as_code(text: str) -> str | None:
    """The code that a transcript spells, or None when it holds anything else.

    Single letters and runs of digits count as themselves, so that a typed `code a 742` is A742 too.
    """
    words = text.lower().replace(",", " ").split()
    if words and words[0] == CODE_WORD:
        words = words[1:]
    symbols = [_symbol(word) for word in words]
    return "".join(symbol for symbol in symbols if symbol) if symbols and all(symbols) else None


def as_words(code: str) -> str:
    """How to say a code: `A742` is `alpha seven four two`. Characters without a word are left as they are."""
    return " ".join(_word(character) for character in code)


def near_line(text: str, near: Sequence[str]) -> str:
    """`no A742; one symbol off: A741`. text: the code as it was spelled or typed; near: those there are, not empty."""
    return f"no {as_code(text) or text.strip().upper()}; one symbol off: {', '.join(near)}"


def _symbol(word: str) -> str | None:
    if word in SYMBOLS:
        return SYMBOLS[word]
    if word.isascii() and (word.isdigit() or (len(word) == 1 and word.isalpha())):
        return word.upper()
    return None


def _word(character: str) -> str:
    if character.isascii() and character.isalpha():
        return LETTERS[ord(character.upper()) - ord("A")]
    if character.isascii() and character.isdigit():
        return DIGITS[int(character)]
    return "dash" if character == "-" else character
