"""Where sentences end, with exact offsets."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.answer.sentences import sentence_spans
from rag.answer.units import split_units


def sentences(text: str) -> list[str]:
    return [text[start:end] for start, end in sentence_spans(text)]


@pytest.mark.parametrize(
    "expected",
    [
        ["Leave is 25 days.", "Ask HR!", "Really?", "Yes."],
        ["Staff get 25 days, i.e. five weeks.", "Sick leave is separate."],
        ["Dr. J. R. Smith (see p. 4) approves it at 9 a.m.", "The form is blue."],
        ["The rate is 3.5 per cent.", "It was 1.200,50 euros."],
        ["See https://a.example/b.html?x=1.y for details.", "Or call."],
        ["It applies in the U.S. and the U.K. only.", "It is law."],
        ["It was founded by Acme Inc. in 1990.", "They sold it to Beta Ltd.", "The price is unknown."],
        ["Room No. 5 is free.", "Sec. 4 applies."],
        ['He said: "Stop."', "Then he left (at once.)", "No one knew."],
        ["The tower is 324 m tall.[4]", "It is made of iron.[5][6]"],
        ["Wait... what happened?", "Nothing."],
        ["合同期限为两年。", "谁负责？", "财务部；他说：“好。”", "然后结束"],
    ],
)
def test_sentences_end_where_a_reader_ends_them(expected: list[str]) -> None:
    joiner = "" if "。" in expected[0] else " "
    assert sentences(joiner.join(expected)) == expected


def test_spans_stay_inside_the_asked_range() -> None:
    text = "One. Two. Three."
    assert [text[a:b] for a, b in sentence_spans(text, 5, 9)] == ["Two."]


@given(st.text(alphabet=st.sampled_from("aZ. |\n#-*\t`=~?。1)\u3000"), max_size=80))
def test_units_are_in_order_without_overlap_and_lose_no_letter(text: str) -> None:
    units = split_units(text)
    at = 0
    for unit in units:
        assert at <= unit.start < unit.end <= len(text)
        assert text[unit.start : unit.end] == text[unit.start : unit.end].strip()
        at = unit.end
    leads = {unit.lead for unit in units if unit.lead}
    covered = {i for start, end in [*((u.start, u.end) for u in units), *leads] for i in range(start, end)}
    languages = {i for found in re.finditer(r"(?:`{3,}|~{3,})[ \t]*([^\s`~]+)", text) for i in range(*found.span(1))}
    lost = [i for i, one in enumerate(text) if one == "Z" and i not in covered and i not in languages]
    assert not lost


@pytest.mark.parametrize("text", ["~~~Z", "```Z", "```Z and more\na", "```\na\n```Z\n```", "~~~\na\n~~~ Z b\n~~~"])
def test_what_only_looks_like_a_fence_is_not_lost(text: str) -> None:
    at = text.index("Z")
    assert any(unit.start <= at < unit.end for unit in split_units(text))
