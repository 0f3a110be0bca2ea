"""What a spoken grammar takes: codes of the shapes that the catalogue has, its names, and the commands. Pure functions.

A closed list of words is what makes it sure, so it is as small as the station's own catalogue: a station whose codes
are one letter and three digits is not asked to tell "alpha seven four two" from "alpha seven four tango".
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

MOST_SHAPES = 6
MOST_SYMBOLS = 8  # of a code that is spelled
MOST_PHRASES = 500  # more make every one of them less certain, and the search slower
MOST_WORDS = 6  # of one phrase; nobody says more of a name
CODE_WORD, DASHES = "code", ("dash", "hyphen")
USUAL_SHAPES = ("LDDD", "LDD")  # where the catalogue has no code that can be spelled


@dataclass(frozen=True, slots=True)
class GrammarWords:
    """letters, digits: words that spell one symbol. shapes: `L`, `D` and `-` in the order in which codes have them."""

    letters: tuple[str, ...]
    digits: tuple[str, ...]
    shapes: tuple[str, ...]
    phrases: tuple[str, ...]


def shapes_of(codes: Iterable[str]) -> tuple[str, ...]:
    """The commonest shapes: `A742` is `LDDD`. Codes too long to be spelled are left out."""
    counted = Counter(_shape(code) for code in codes if 1 < len(code) <= MOST_SYMBOLS)
    return tuple(shape for shape, _ in counted.most_common(MOST_SHAPES)) or USUAL_SHAPES


def phrases_of(names: Iterable[str], digits: Sequence[str]) -> tuple[str, ...]:
    """Names as they are said: words alone, numbers digit by digit, and each name once more up to its first number.

    digits: the words for 0 to 9.
    """
    return tuple(dict.fromkeys(phrase for name in names for phrase in _said(name.lower(), digits) if phrase))


def jsgf(words: GrammarWords, has: Mapping[str, object]) -> str:
    """The grammar in JSGF. has: the words that the dictionary knows; what needs others is left out."""
    letters, digits = ([word for word in spelled if word in has] for spelled in (words.letters, words.digits))
    phrases = known(words.phrases, has)
    shapes = [shape for shape in words.shapes if ("L" not in shape or letters) and ("D" not in shape or digits)]
    request = [*(f"[{CODE_WORD}] {_spelled(shape)}" for shape in shapes), *(["<phrase>"] if phrases else [])]
    rules = {"phrase": phrases, "letter": letters, "digit": digits, "dash": list(DASHES)}
    lines = ["#JSGF V1.0;", "grammar station;", f"public <request> = {' | '.join(request)};"]
    return "\n".join([*lines, *(f"<{name}> = {' | '.join(of)};" for name, of in rules.items() if of)]) + "\n"


def known(phrases: Iterable[str], has: Mapping[str, object]) -> list[str]:
    """Those whose every word the dictionary has, the first MOST_PHRASES of them."""
    return [phrase for phrase in phrases if all(word in has for word in phrase.split())][:MOST_PHRASES]


def every_word(words: GrammarWords, has: Mapping[str, object]) -> set[str]:
    """The words of the grammar that the dictionary has."""
    texts = [*words.letters, *words.digits, CODE_WORD, *DASHES, *known(words.phrases, has)]
    return {word for text in texts for word in text.split() if word in has}


def is_whole(text: str, words: GrammarWords) -> bool:
    """Whether a text is a whole phrase or code: a search that ends too early answers with the beginning of one."""
    if text in words.phrases:
        return True
    said = [word for word in text.removeprefix(CODE_WORD).split() if word not in DASHES]
    marks = {**dict.fromkeys(words.letters, "L"), **dict.fromkeys(words.digits, "D")}
    shape = "".join(marks.get(word, "?") for word in said)
    return shape in {one.replace("-", "") for one in words.shapes}


def _shape(code: str) -> str:
    return "".join("D" if symbol.isdigit() else "L" if symbol.isalpha() else "-" for symbol in code)


def _spelled(shape: str) -> str:
    return " ".join({"L": "<letter>", "D": "<digit>"}.get(symbol, "[<dash>]") for symbol in shape)


def _said(name: str, digits: Sequence[str]) -> Iterator[str]:
    before = re.split(r"\d", name)[0]
    for text in (name, before):
        spoken = re.sub(r"(\d)[.,](\d)", r"\1 point \2", text)
        spoken = re.sub(r"\d", lambda found: f" {digits[int(found[0])]} ", spoken)
        yield " ".join(re.findall(r"[a-z']+", spoken)[:MOST_WORDS])
