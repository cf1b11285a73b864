"""The checker is shown wrong histories, one for each rule: a checker that cannot fail proves nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.faults.checker import violations, violations_at_rest
from tests.faults.history import Change, History, Rest, Sight, standing, text_of
from tests.faults.history import paragraphs as paragraphs_of
from tests.faults.rounds import schedule
from tests.faults.victims import VICTIMS

FIRST, SECOND, FOREIGN = "zqaaaaaaaaaa", "zqbbbbbbbbbb", "zqcccccccccc"
NAME = ("acme", "ledger")


def good() -> History:
    """A document uploaded at 0, found at 2, replaced at 3, found anew at 5, deleted at 6; another one beside it."""
    history = History()
    _put(history, "acme", FIRST, 0.0, 1.0, searchable=1.5)
    _put(history, "acme", SECOND, 3.0, 3.5, searchable=4.0)
    _put(history, "globex", FOREIGN, 0.0, 1.0, searchable=1.5)
    gone = history.delete("acme", "ledger", "d1")
    gone.began, gone.ended, gone.outcome = 6.0, 6.5, "acknowledged"
    _saw(history, FIRST, 2.0, (FIRST,))
    _saw(history, SECOND, 3.2, (FIRST,))
    _saw(history, SECOND, 5.0, (SECOND,))
    _saw(history, SECOND, 7.0, ())
    return history


def _put(history: History, tenant: str, word: str, began: float, ended: float, *, searchable: float) -> Change:
    change = history.put(tenant, "ledger", word, parts=2)
    change.began, change.ended, change.outcome, change.searchable = began, ended, "acknowledged", searchable
    change.document_id = "d1"
    return change


def _saw(history: History, asked: str, at: float, words: tuple[str, ...], **parts: object) -> None:
    values = {"tenant": "acme", "kind": "search", "status": 200, "keys": tuple(map(str, range(len(words)))), **parts}
    history.sights.append(Sight(asked=asked, began=at, ended=at + 0.1, words=words, **values))  # type: ignore[arg-type]


def test_a_right_history_is_left_alone() -> None:
    assert violations(good()) == []


WRONGS: list[tuple[str, Callable[[History], None], str]] = [
    ("deleted, seen", lambda h: _saw(h, FIRST, 6.6, (SECOND,)), "after the acknowledged delete"),
    ("deleted, cited", lambda h: _saw(h, FIRST, 9.0, (SECOND,), kind="chat"), "after the acknowledged delete"),
    ("deleted, listed", lambda h: _saw(h, "", 7.0, (), kind="list", keys=("d1",)), "showed the deleted document"),
    ("deleted, readable", lambda h: _saw(h, "d1", 7.0, (), kind="content", keys=()), "showed the deleted document"),
    ("back to the old version", lambda h: _saw(h, SECOND, 5.2, (FIRST,)), "after step 1 had been shown"),
    ("another tenant's", lambda h: _saw(h, FIRST, 2.0, (FOREIGN,)), "of globex"),
    ("out of nowhere", lambda h: _saw(h, FIRST, 2.0, ("zqdddddddddd",)), "nobody had uploaded"),
    ("before it was sent", lambda h: _saw(h, FIRST, 2.0, (SECOND,)), "nobody had uploaded"),
    ("two versions at once", lambda h: _saw(h, FIRST, 3.2, (FIRST, SECOND)), "steps 0 and 1"),
    ("a chunk twice", lambda h: _saw(h, FIRST, 2.0, (FIRST, FIRST), keys=("c", "c")), "same key twice"),
    ("done, not found", lambda h: _saw(h, SECOND, 4.5, ()), "did not find"),
    ("an odd answer", lambda h: h.oddities.append("POST was answered 500"), "answered 500"),
]


@pytest.mark.parametrize(("wrong", "sentence"), [case[1:] for case in WRONGS], ids=[case[0] for case in WRONGS])
def test_a_wrong_history_is_seen(wrong: Callable[[History], None], sentence: str) -> None:
    history = good()
    wrong(history)
    assert [violation for violation in violations(history) if sentence in violation.sentence]


def test_a_document_that_was_gone_before_its_delete_is_seen() -> None:
    history = good()
    gone = history.changes[NAME][-1]
    gone.outcome, gone.answer = "refused", "404 not_found"
    assert any("gone before it was deleted" in one.sentence for one in violations(history))


def test_what_was_asked_before_the_answer_may_still_show_it() -> None:
    history = good()
    _saw(history, SECOND, 6.4, (SECOND,))
    assert violations(history) == []


TOLD = tuple(paragraphs_of(text_of(FIRST, 2)))
WHOLE = Rest(listed=("d1",), found={FIRST: ("c1",)}, positions=(0,), paragraphs=TOLD)
GONE = Rest(listed=(), found={FIRST: ()})


def one_upload(outcome: str = "acknowledged") -> History:
    history = History()
    change = _put(history, "acme", FIRST, 0.0, 1.0, searchable=1.5)
    change.outcome = outcome  # type: ignore[assignment]
    return history


def test_what_stands_is_left_alone() -> None:
    assert violations_at_rest(one_upload(), {NAME: WHOLE}) == []
    assert violations_at_rest(one_upload("unknown"), {NAME: WHOLE}) == []
    assert violations_at_rest(one_upload("unknown"), {NAME: GONE}) == []


BROKEN: list[tuple[str, Rest, str]] = [
    ("lost", GONE, "not found"),
    ("not listed", Rest((), {FIRST: ("c1",)}, (0,), TOLD), "lacks"),
    ("listed twice", Rest(("d1", "d2"), {FIRST: ("c1",)}, (0,), TOLD), "2 times"),
    ("a chunk twice", Rest(("d1",), {FIRST: ("c1", "c1")}, (0,), TOLD), "found twice"),
    ("a chunk too many", Rest(("d1",), {FIRST: ("c1", "c2")}, (0,), TOLD), "shows 2"),
    ("half of it", Rest(("d1",), {FIRST: ("c1",)}, (0,), TOLD[:1]), "its chunks hold"),
    ("a paragraph twice", Rest(("d1",), {FIRST: ("c1",)}, (0,), (*TOLD, TOLD[0])), "its chunks hold"),
    ("a gap", Rest(("d1",), {FIRST: ("c1",)}, (1,), TOLD), "lie at"),
]


@pytest.mark.parametrize(("rest", "sentence"), [case[1:] for case in BROKEN], ids=[case[0] for case in BROKEN])
def test_what_is_broken_at_rest_is_seen(rest: Rest, sentence: str) -> None:
    assert [one for one in violations_at_rest(one_upload(), {NAME: rest}) if sentence in one.sentence]


def test_half_of_an_unacknowledged_upload_is_seen() -> None:
    half = Rest(("d1",), {FIRST: ("c1",)}, (0,), TOLD[:1])
    assert violations_at_rest(one_upload("unknown"), {NAME: half})


def test_what_is_left_of_a_deleted_document_is_seen() -> None:
    history = good()
    left = Rest(("d1",), {FIRST: (), SECOND: ("c1",)}, (0,), tuple(paragraphs_of(text_of(SECOND, 2))))
    sentences = [one.sentence for one in violations_at_rest(history, {NAME: left})]
    assert any("does not stand" in one for one in sentences)
    assert any("although it is deleted" in one for one in sentences)


def test_an_old_version_that_is_left_is_seen() -> None:
    history = good()
    history.changes[NAME].pop()
    both = Rest(("d1",), {FIRST: ("c0",), SECOND: ("c1",)}, (0,), tuple(paragraphs_of(text_of(SECOND, 2))))
    assert any("several versions" in one.sentence for one in violations_at_rest(history, {NAME: both}))


def test_an_unknown_change_after_the_last_acknowledged_one_may_stand() -> None:
    history = one_upload()
    later = history.delete("acme", "ledger", "d1")
    later.outcome = "unknown"
    assert [change.step for change in standing(history.changes[NAME])] == [0, 1]
    assert violations_at_rest(history, {NAME: WHOLE}) == violations_at_rest(history, {NAME: GONE}) == []


def test_a_seed_is_one_plan_and_spares_the_supervisors_patience() -> None:
    planned = schedule(7, 200)
    assert planned == schedule(7, 200) != schedule(8, 200)
    assert planned[:40] == schedule(7, 40), "a shorter run is the beginning of a longer one"
    for start in range(len(planned) - 3):
        names = [name for one in planned[start : start + 4] for name in one.victims]
        assert max(map(names.count, names)) <= 3
    assert {name for one in planned for name in one.victims} == set(VICTIMS)
