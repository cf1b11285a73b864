"""What of a passage can be quoted: sentences, items, rows with their headers, headings, code."""

from __future__ import annotations

from rag.answer.units import split_units


def shown(text: str) -> list[tuple[str, str, str | None]]:
    return [
        (unit.kind, text[unit.start : unit.end], text[slice(*unit.lead)] if unit.lead else None)
        for unit in split_units(text)
    ]


def test_a_markdown_row_carries_its_header() -> None:
    text = "Prices:\n\n| Plan | Price |\n|---|---|\n| Pro | $20 |\n| Team | $50 |\n\nAll per month."
    assert shown(text) == [
        ("sentence", "Prices:", None),
        ("row", "Pro | $20", "Plan | Price"),
        ("row", "Team | $50", "Plan | Price"),
        ("sentence", "All per month.", None),
    ]


def test_rows_cut_off_from_their_header_stand_alone() -> None:
    assert shown("| Pro | $20 |\n| Team | $50 |") == [("row", "Pro | $20", None), ("row", "Team | $50", None)]


def test_a_table_drawn_with_blanks_keeps_wrapped_cells_together() -> None:
    text = (
        "   Function            Up to          Approval\n"
        "   ----------------    -----------    -----------------\n"
        "   Team leader         EUR 500        none\n"
        "   Head of finance     EUR 25,000     department head and\n"
        "                                      quality\n"
    )
    rows = shown(text)
    header = "Function            Up to          Approval"
    assert [row[2] for row in rows] == [header, header]
    assert rows[0][1] == "Team leader         EUR 500        none"
    assert rows[1][1].split() == ["Head", "of", "finance", "EUR", "25,000", "department", "head", "and", "quality"]


def test_a_list_item_carries_the_line_that_introduces_it() -> None:
    text = "You need:\n\n- A badge. It is red.\n- A laptop,\n  with charger\n\nAsk HR.\n\n1. First"
    assert shown(text) == [
        ("sentence", "You need:", None),
        ("item", "A badge.", "You need:"),
        ("item", "It is red.", "You need:"),
        ("item", "A laptop,\n  with charger", "You need:"),
        ("sentence", "Ask HR.", None),
        ("item", "First", None),
    ]


def test_headings_of_every_style_are_kept_with_what_stands_below() -> None:
    text = "# Leave\n\nGeneral.\n\nSetext\n------\n\nBelow.\n\n2.1 Limits\n\nAmounts.\n\nCONTACT\n\nCall us."
    units = split_units(text)
    assert [text[u.start : u.end] for u in units if u.kind == "heading"] == [
        "Leave",
        "Setext",
        "2.1 Limits",
        "CONTACT",
    ]
    below = {text[u.start : u.end]: u.headings for u in units if u.kind == "sentence"}
    assert below["General."] == ("Leave",)
    assert below["Below."] == ("Leave", "Setext")
    assert below["Amounts."] == ("Leave", "2.1 Limits")
    assert below["Call us."] == ("CONTACT",)


def test_wrapped_lines_are_one_sentence_and_long_lines_are_not_joined() -> None:
    wrapped = "The mileage rate for a private car is\nCHF 0.68 per kilometre."
    assert shown(wrapped) == [("sentence", wrapped, None)]
    long = "Ignore this line without an end " + "x" * 160 + "\nThe answer is here."
    assert [text for _, text, _ in shown(long)] == long.split("\n")


def test_code_is_one_unit() -> None:
    assert shown("Run:\n\n```sh\nmake up\n\nmake test\n```\nDone.") == [
        ("sentence", "Run:", None),
        ("code", "make up\n\nmake test", "Run:"),
        ("sentence", "Done.", None),
    ]
