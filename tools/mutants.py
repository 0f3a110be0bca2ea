"""Small wrongs in C source, one at a time: what a mutation run puts into the controller's core.

Works on tokens, so that comments, strings and preprocessor lines stay as they are. A mutant is one piece of text in
place of another; most compile, those that do not are not counted.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

TOKEN = re.compile(
    r"""(?P<comment>/\*.*?\*/|//[^\n]*)|(?P<directive>^[ \t]*\#(?:\\\n|[^\n])*)
    |(?P<string>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')
    |(?P<number>0[xX][0-9a-fA-F]+[uUlL]*|\d+[uUlL]*)|(?P<word>[A-Za-z_]\w*)
    |(?P<operator><<=|>>=|->|\+\+|--|<<|>>|<=|>=|==|!=|&&|\|\||[-+*/%&|^]=|[-+*/%<>=!&|^~?:;,.(){}\[\]])|(?P<space>\s+)""",
    re.VERBOSE | re.DOTALL | re.MULTILINE,
)
SWAPS = {
    "<": ("<=", ">"), "<=": ("<",), ">": (">=", "<"), ">=": (">",), "==": ("!=",), "!=": ("==",),
    "&&": ("||",), "||": ("&&",), "+": ("-",), "-": ("+",), "*": ("+",), "/": ("*",), "%": ("+",),
    "+=": ("-=",), "-=": ("+=",), "|=": ("&=",), "&=": ("|=",), "^=": ("|=",), "<<": (">>",), ">>": ("<<",),
    "++": ("--",), "--": ("++",), "true": ("false",), "false": ("true",),
}  # fmt: skip
TYPES = frozenset(
    ("void", "bool", "char", "int", "unsigned", "signed", "const", "static", "struct", "enum", "volatile")
)
KEYWORDS = frozenset(("if", "else", "for", "while", "do", "switch", "case", "default", "return", "break", "continue",
                      "goto", "sizeof"))  # fmt: skip
OPERAND_END = frozenset(")]")


@dataclass(frozen=True, slots=True)
class Token:
    kind: str
    text: str
    at: int


@dataclass(frozen=True, slots=True)
class Mutant:
    file: str
    line: int
    operator: str
    before: str
    after: str
    begin: int
    end: int
    mark: str  # file, function and line with the change in it: what names it when lines have moved

    def apply(self, source: str) -> str:
        return source[: self.begin] + self.after + source[self.end :]


def _one_line(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 60 else text[:57] + "..."


def tokens(source: str) -> list[Token]:
    """What the compiler sees, without spaces, comments and directives."""
    found = []
    for match in TOKEN.finditer(source):
        kind = match.lastgroup or ""
        if kind not in ("space", "comment", "directive"):
            found.append(Token(kind, match.group(), match.start()))
    return found


def mutants(file: str, source: str) -> list[Mutant]:
    """All mutants of a file, in order of place. Only what is inside function bodies is touched."""
    found, seen = [], Counter[str]()
    for function, inside in bodies(tokens(source)):
        made = [*_swaps(inside), *_numbers(inside), *_conditions(inside, source), *_statements(inside, source)]
        for operator, begin, end, after in made:
            mark = f"{file}:{function}: {_marked(source, begin, end, after)}"
            seen[mark] += 1
            mark += f" #{seen[mark]}" if seen[mark] > 1 else ""
            line = source.count("\n", 0, begin) + 1
            found.append(Mutant(file, line, operator, source[begin:end], after, begin, end, mark))
    return sorted(found, key=lambda one: (one.begin, one.end, one.operator, one.after))


def _marked(source: str, begin: int, end: int, after: str) -> str:
    first, last = source.rfind("\n", 0, begin) + 1, source.find("\n", end)
    change = "{{" + _one_line(source[begin:end]) + " => " + _one_line(after) + "}}"
    return " ".join((source[first:begin] + change + source[end:last]).split())


Change = tuple[str, int, int, str]


def bodies(all_tokens: list[Token]) -> Iterator[tuple[str, list[Token]]]:
    """Functions, name and body: braces that open at the outermost level behind a parenthesis."""
    depth, begin, name = 0, None, ""
    for at, token in enumerate(all_tokens):
        if token.text == "{":
            if depth == 0 and at and all_tokens[at - 1].text == ")":
                begin = at
            depth += 1
        elif depth == 0 and token.text == "(" and at:
            name = all_tokens[at - 1].text
        elif token.text == "}":
            depth -= 1
            if depth == 0 and begin is not None:
                yield name, all_tokens[begin : at + 1]
                begin = None


def _swaps(inside: list[Token]) -> Iterator[Change]:
    for before, token in pairwise(inside):
        is_binary = (before.kind in ("word", "number") and before.text not in KEYWORDS) or before.text in OPERAND_END
        if token.text in ("*", "&", "-", "+") and not is_binary:
            continue  # a pointer, an address, a sign
        if (token.text == "*" and before.text in TYPES | {"const"}) or (
            token.text == "*" and before.text.endswith("_t")
        ):
            continue  # a declaration
        if token.text == "-" and before.text == "(":
            continue
        for other in SWAPS.get(token.text, ()):
            yield "swap", token.at, token.at + len(token.text), other


def _numbers(inside: list[Token]) -> Iterator[Change]:
    for token in inside:
        if token.kind != "number":
            continue
        digits = token.text.rstrip("uUlL")
        suffix = token.text[len(digits) :]
        value = int(digits, 16) if digits[:2].lower() == "0x" else int(digits)
        for other in (value + 1, value - 1):
            if other >= 0:
                yield "number", token.at, token.at + len(token.text), f"{other}{suffix}"


def _matching(inside: list[Token], at: int) -> int:
    depth = 0
    for end in range(at, len(inside)):
        depth += (inside[end].text == "(") - (inside[end].text == ")")
        if depth == 0:
            return end
    return len(inside) - 1


def _conditions(inside: list[Token], source: str) -> Iterator[Change]:
    for at, token in enumerate(inside[:-1]):
        if token.text in ("if", "while") and inside[at + 1].text == "(":
            begin, end = inside[at + 1].at, inside[_matching(inside, at + 1)].at + 1
            yield "negate", begin, end, f"(!{source[begin:end]})"


def _statements(inside: list[Token], source: str) -> Iterator[Change]:
    """Leave out one expression statement: from behind `;`, `{`, `}`, `)` or `else` to the next `;`."""
    depth = 0
    for at, token in enumerate(inside):
        depth += (token.text == "(") - (token.text == ")")
        if at == 0 or depth or token.kind != "word" or token.text in TYPES:
            continue
        before = inside[at - 1].text
        is_start = before in (";", "{", "}", "else") or (before == ")" and _closes_condition(inside, at - 1))
        if not is_start or token.text in KEYWORDS - {"return", "break", "continue"}:
            continue
        end = next((i for i in range(at, len(inside)) if inside[i].text in (";", "{", "}")), None)
        if end is None or inside[end].text != ";" or token.text in ("return", "break", "continue"):
            continue
        if at + 1 < len(inside) and inside[at + 1].kind == "word":
            continue  # a declaration: type and name
        if at + 2 < len(inside) and inside[at + 1].text == "*" and inside[at + 2].kind == "word":
            continue
        yield "delete", token.at, inside[end].at + 1, ";"


def _closes_condition(inside: list[Token], at: int) -> bool:
    depth = 0
    for begin in range(at, -1, -1):
        depth += (inside[begin].text == ")") - (inside[begin].text == "(")
        if depth == 0:
            return begin > 0 and inside[begin - 1].text in ("if", "while", "for")
    return False
