"""What a question asks for, and how much of it a text covers."""

from __future__ import annotations

import pytest

from rag.answer.answer_types import asked_type, holds_type
from rag.answer.names import code_forms, codes, is_stated
from rag.answer.terms import ASKED_WEIGHT, coverage, question_terms, stems


def test_only_content_words_count() -> None:
    terms = question_terms("How long is the warranty on the LX-40?", {"warranty": 3.0, "lx": 5.0, "40": 2.0})
    assert [(term.word, term.weight, term.named) for term in terms] == [
        ("warranty", 3.0, False),
        ("lx", 5.0, True),
        ("40", 2.0, True),
    ]


def test_a_word_the_index_does_not_know_weighs_as_much_as_the_rarest() -> None:
    weights = {term.word: term.weight for term in question_terms("gondola fee", {"fee": 2.0, "of": 7.0})}
    assert weights == {"gondola": 7.0, "fee": 2.0}


def test_the_noun_that_names_the_answer_weighs_little() -> None:
    weights = {term.word: term.weight for term in question_terms("What colour is the badge?", {})}
    assert weights == {"colour": ASKED_WEIGHT, "badge": 1.0}


def test_a_question_of_stop_words_keeps_them() -> None:
    assert [term.word for term in question_terms("Who are you?", {})] == ["who", "are", "you"]


def test_coverage_is_by_weight_and_stem() -> None:
    terms = question_terms("approved vacations", {"approved": 1.0, "vacations": 3.0})
    assert coverage(terms, stems("A vacation policy")) == pytest.approx(0.75)
    assert coverage([], stems("anything")) == 0.0


def test_a_question_without_spaces_is_matched_by_its_pairs() -> None:
    terms = question_terms("合同期限", {})
    assert coverage(terms, stems("本合同期限为两年。")) == 1.0
    assert coverage(terms, stems("办公室在三楼。")) == 0.0


@pytest.mark.parametrize(
    ("code", "text", "stated"),
    [
        ("lx-40", "The LX-40 weighs 3 kg.", True),
        ("lx-70", "The LX-40 costs 70 euros.", False),
        ("2024/25", "In the season 2024/25 we grew.", True),
        ("50th", "From the 50th birthday", True),
        ("1970s", "It opened in 1970.", True),
        ("1200", "Up to 1,200 hours", True),
        ("5", "Orders of five instruments", True),
        ("90", "within 9 days", False),
    ],
)
def test_codes_are_compared_as_they_are_written(code: str, text: str, stated: bool) -> None:
    assert codes(f"What about {code}?") == [code]
    assert is_stated(code, code_forms(text)) is stated


@pytest.mark.parametrize(
    ("question", "kind", "holding", "lacking"),
    [
        ("When does it open?", "date", "It opens on 3 May.", "It opens soon."),
        ("How long is the notice?", "duration", "It is three weeks.", "It is short."),
        ("How many days of leave?", "duration", "You get 25 days.", "You get leave."),
        ("How many seats are there?", "number", "There are 40.", "There are seats."),
        ("What percentage is paid?", "share", "You get 80 per cent.", "You get 80 euros."),
        ("Who approves leave?", "person", "Leave is approved by Jane Doe.", "Leave is approved quickly."),
        ("Where is the form?", "place", "It lies at the reception.", "It is blue."),
        ("Why is it closed?", "reason", "It is closed because of snow.", "It is closed."),
    ],
)
def test_the_kind_of_answer_is_known_from_the_wording(question: str, kind: str, holding: str, lacking: str) -> None:
    found = asked_type(question)
    assert found == kind
    assert holds_type(found, holding, question)
    assert not holds_type(found, lacking, question)


def test_what_the_question_says_itself_is_no_answer() -> None:
    assert not holds_type("date", "The 2025 report.", "When was the 2025 report published?")
    assert asked_type("Tell me about leave") is None
