"""Numbers and codes of a question that an answering passage has to contain: `LX-40`, `2024/25`, `90`, `50th`.

Meaning does not tell one number from another, so these are compared as they are written. "The LX-70" is not answered
by a sentence on the LX-40, however near it is.
"""

from __future__ import annotations

import re

_TOKEN = re.compile(r"\w+(?:[-./:,'’]\w+)*")
_SUFFIXED = re.compile(r"(\d+)[^\W\d_]{1,3}")
_NUMBER_WORDS = {
    word: str(number)
    for number, word in enumerate(
        re.findall(
            r"\w+",
            "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
            "seventeen eighteen nineteen twenty",
        )
    )
}


def codes(question: str) -> list[str]:
    """The distinct words of a question that have a digit, lower case, without thousands separators."""
    return [word for word in dict.fromkeys(_tokens(question)) if _has_digit(word)]


def code_forms(text: str) -> frozenset[str]:
    """Every form under which `is_stated` finds a code: whole, its parts, without an ordinal or plural ending."""
    found: set[str] = set()
    for word in _tokens(text):
        if word in _NUMBER_WORDS:
            found.add(_NUMBER_WORDS[word])
        elif _has_digit(word):
            found.add(word)
            found.update(part for part in re.split(r"[-./:]", word) if _has_digit(part))
            if bare := _SUFFIXED.fullmatch(word):
                found.add(bare.group(1))
    return frozenset(found)


def is_stated(code: str, forms: frozenset[str]) -> bool:
    """Whether a code of a question is among the `code_forms` of a text; `1970s` and `50th` may drop the ending."""
    bare = _SUFFIXED.fullmatch(code)
    return code in forms or (bare is not None and bare.group(1) in forms)


def _tokens(text: str) -> list[str]:
    return [re.sub(r"['’]s?$", "", match.group().lower().replace(",", "")) for match in _TOKEN.finditer(text)]


def _has_digit(word: str) -> bool:
    return any(character.isdigit() for character in word)
