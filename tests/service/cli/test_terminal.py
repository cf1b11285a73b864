"""What is printed: harmless, and for programs exactly what was meant."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
import typer

from service.cli.key import duration, is_active
from service.cli.search import SNIPPET, snippet
from service.cli.terminal import json_object, line, out, plain, print_json, text


@pytest.mark.parametrize("harm", ["\x1b[2J", "\x9b31m", "\x07", "\x08", "\r", "\u202e", "\u2066", "\x00", "\x7f"])
def test_a_document_cannot_act_on_the_terminal(harm: str) -> None:
    assert plain(f"be{harm}fore") == f"be{harm[1:]}fore"


def test_markup_in_a_document_means_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    out.print(text("[bold]x[/bold] [link=http://e]"))
    assert capsys.readouterr().out == "[bold]x[/bold] [link=http://e]\n"


def test_one_line_and_a_dash_for_nothing() -> None:
    assert (line(" a\r\n\tb "), line(None)) == ("a b", "-")


def test_json_is_printed_whole(capfd: pytest.CaptureFixture[str]) -> None:
    data = {"text": "Größe \x1b[31m " + "long " * 100}
    print_json(data)
    printed = capfd.readouterr().out
    assert json.loads(printed) == data
    assert "Größe" in printed
    assert "\x1b" not in printed


@pytest.mark.parametrize("raw", ["{", "[1]", "3", "null", ""])
def test_an_option_that_is_no_json_object_is_refused(raw: str) -> None:
    with pytest.raises(typer.BadParameter):
        json_object(raw)


def test_a_snippet_shows_the_part_with_the_words_of_the_question() -> None:
    passage = "Nothing to see here. " * 40 + "The harbour closes at seven in the evening. " + "Nothing more. " * 40
    shown = snippet(passage, "When does the harbour close in the evening?")
    assert "harbour closes at seven in the evening" in shown
    assert shown.startswith("… ")
    assert shown.endswith(" …")
    assert len(shown) <= SNIPPET + 4


def test_a_short_passage_is_shown_whole() -> None:
    assert snippet("All boats\nare red.", "boats") == "All boats are red."


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("90m", timedelta(minutes=90)),
        ("12h", timedelta(hours=12)),
        ("30d", timedelta(days=30)),
        ("8w", timedelta(weeks=8)),
    ],
)
def test_durations(raw: str, expected: timedelta) -> None:
    assert duration(raw) == expected


@pytest.mark.parametrize("raw", ["", "30", "0d", "-1d", "1y", "1.5h", "9999999d", "d"])
def test_what_is_no_duration_is_refused(raw: str) -> None:
    with pytest.raises(typer.BadParameter):
        duration(raw)


@pytest.mark.parametrize(
    ("expires_at", "revoked_at", "active"),
    [
        (None, None, True),
        ("2099-01-01T00:00:00Z", None, True),
        ("2020-01-01T00:00:00Z", None, False),
        (None, "2020-01-01T00:00:00Z", False),
    ],
)
def test_which_keys_are_active(expires_at: str | None, revoked_at: str | None, active: bool) -> None:
    assert is_active({"expires_at": expires_at, "revoked_at": revoked_at}) is active
