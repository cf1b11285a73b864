"""Text in pieces: wrapped at words, the same however it is cut."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from service.cli.flow import Flow

ANSWER = (
    "A full-time employee has 31 days of annual leave in a calendar year. [1]\n\nThe rest is\x1b[31m up to you [2][3]."
)


def shown(pieces: list[str], *, terminal: bool, indent: int = 0, width: int = 40) -> str:
    file = io.StringIO()
    flow = Flow(Console(file=file, force_terminal=terminal, width=width, color_system=None), indent=indent)
    for piece in pieces:
        flow.write(piece)
    flow.end()
    return file.getvalue()


def test_lines_are_wrapped_at_words_within_the_indent() -> None:
    lines = shown([ANSWER], terminal=True, indent=4).splitlines()
    assert lines == [
        "    A full-time employee has 31 days of",
        "    annual leave in a calendar year. [1]",
        "",
        "    The rest is[31m up to you [2][3].",
    ]


def test_a_citation_stays_with_what_it_proves() -> None:
    assert shown(["one two three. [1]"], terminal=True, width=17).splitlines() == ["one two", "three. [1]"]


def test_a_program_gets_the_lines_as_they_were_sent() -> None:
    assert shown([ANSWER], terminal=False) == ANSWER.replace("\x1b", "") + "\n"


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("cut", range(len(ANSWER)))
def test_the_text_does_not_depend_on_where_it_is_cut(terminal: bool, cut: int) -> None:
    # At this width the first citation would stand alone on a line.
    whole = shown([ANSWER], terminal=terminal, width=35)
    assert shown([ANSWER[:cut], ANSWER[cut:]], terminal=terminal, width=35) == whole


def test_words_appear_before_the_sentence_is_whole() -> None:
    file = io.StringIO()
    flow = Flow(Console(file=file, width=40))
    flow.write("The harbour clos")
    assert file.getvalue() == "The harbour"
