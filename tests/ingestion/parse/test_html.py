"""HTML: what a reader sees, without navigation."""

from __future__ import annotations

import pytest

from ingestion.parse.document import ParsedDocument, TextLimits
from ingestion.parse.html import parse_html
from tenants.errors import DocumentRejected


def html(text: str) -> ParsedDocument:
    return parse_html(text.encode(), TextLimits())


def shown(parsed: ParsedDocument) -> list[tuple[str, int, str]]:
    return [(block.kind, block.level, parsed.text[block.start : block.end]) for block in parsed.blocks]


def test_blocks_in_order():
    parsed = html(
        "<title>Hours</title><h1>Hours</h1><p>one <b>two</b>\nthree<br>four<br><br>five</p>"
        "<h2>Lists</h2><ul><li>a<ul><li>b</ul><li><p>c</p><p>d</p></ul><ol start=3><li>x</ol>"
        "<pre>def f():\n    pass\n</pre><dl><dt>Term<dd>meaning</dl>"
    )
    assert shown(parsed) == [
        ("heading", 1, "Hours"),
        ("paragraph", 0, "one two three\nfour"),
        ("paragraph", 0, "five"),
        ("heading", 2, "Lists"),
        ("list", 0, "- a\n  - b\n- c d"),
        ("list", 0, "3. x"),
        ("code", 0, "def f():\n    pass"),
        ("paragraph", 0, "Term: meaning"),
    ]


@pytest.mark.parametrize(
    ("page", "lines"),
    [
        ("<ul><app-item><li>Alpha</li></app-item><app-item><li>Beta</li></app-item></ul>", "- Alpha\n- Beta"),
        ("<ol><div><li>Alpha<ul><div><li>inner</ul></div><div><li>Beta</div></ol>", "1. Alpha\n  - inner\n2. Beta"),
        (
            "<ul>Before <b>the</b> first\n<li>Alpha</li>between<br>two<li>Beta</li>after</ul>",
            "Before the first\n- Alpha\nbetween\ntwo\n- Beta\nafter",
        ),
        ("<ul><div>one</div>two<p>three</p><ul>four<li>five</ul></ul>", "one\ntwo\nthree\n  four\n  - five"),
        ("<ul><li>Alpha<ul>loose</ul></ul>", "- Alpha\n  loose"),
        ("<ul><div hidden><li>no</div><script>no</script><template><li>no</template><li>Alpha</ul>", "- Alpha"),
    ],
)
def test_nothing_in_a_list_is_lost(page: str, lines: str):
    assert shown(html(page)) == [("list", 0, lines)]


def test_a_list_deep_in_lists_is_not_lost():
    deep = "<ul>" * 30 + "<li>Alpha<ul><li>inner</ul></li>loose" + "</ul>" * 30
    assert html(deep).text.split() == ["-", "Alpha", "inner", "loose"]


def test_tables_are_rows_and_spanning_cells_are_repeated():
    parsed = html(
        "<table><caption>Fares</caption><tr><th>Zone<th>Day<th>Price</tr>"
        "<tr><td rowspan=2>A|B<td>Mon<td>3</tr><tr><td>Sun<td>4</tr><tr><td colspan=2>Night<td>9</tr></table>"
    )
    assert shown(parsed) == [
        ("paragraph", 0, "Fares"),
        (
            "table",
            0,
            "| Zone | Day | Price |\n| --- | --- | --- |\n| A\\|B | Mon | 3 |\n| A\\|B | Sun | 4 |\n| Night |  | 9 |",
        ),
    ]


def test_tables_that_lay_out_the_page_are_text():
    parsed = html("<table><tr><td>left<td><table><tr><td>inner</table></tr></table>")
    assert [text for _, _, text in shown(parsed)] == ["left", "inner"]


def test_boilerplate_and_hidden_things_are_left_out():
    parsed = html(
        "<header><a>Logo</a><h1>Hours</h1></header><nav>Home</nav><div role=navigation>Menu</div>"
        "<script>s()</script><style>p{}</style><!-- comment --><p hidden>h1</p><p style='display : none'>h2</p>"
        "<p style='color:red; font-size:0px'>h3</p><p aria-hidden=true>h4</p><p style='visibility:hidden'>h5</p>"
        "<p style='opacity:0'>h6</p><img alt='h7'><svg><text>h8</text></svg><template>h9</template>"
        "<p style='font-size:0.9em;opacity:0.5'>Visible.</p><footer>Imprint</footer>"
    )
    assert parsed.text == "Hours\n\nVisible."


def test_a_header_inside_the_content_stays():
    assert html("<main><header><p>By the harbour office</p></header><p>Text.</p></main>").text == (
        "By the harbour office\n\nText."
    )


def test_a_page_of_navigation_alone_is_kept():
    assert html("<nav><p>Home</p></nav><footer>Imprint</footer>").text == "Home\n\nImprint"


@pytest.mark.parametrize(
    ("head", "title"),
    [
        ("<title>Hours | Acme</title><body><h1>Hours</h1>x", "Hours"),
        ("<title>Acme</title><body><h1>Hours</h1>x", "Acme"),
        ("<title> \n </title><body><h1>Hours</h1>x", "Hours"),
        ("<title>Acme\n site</title><body>x", "Acme site"),
        ("<h2>x</h2>", None),
    ],
)
def test_title(head: str, title: str | None):
    assert html(head).title == title


@pytest.mark.parametrize("charset", ["windows-1251", "koi8-r", "utf-8"])
def test_a_declared_charset_is_read_even_far_down(charset: str):
    page = f"<p>{'x' * 5000}</p><meta http-equiv=content-type content='text/html; charset={charset}'><p>Привет</p>"
    assert "Привет" in parse_html(page.encode(charset), TextLimits()).text


@pytest.mark.parametrize(
    ("page", "code"),
    [
        (b"", "document_empty"),
        (b"<html><body><script>x</script>", "document_empty"),
        (b"<p>" + b"word " * 100, "document_too_long"),
    ],
)
def test_what_cannot_be_read_has_its_own_code(page: bytes, code: str):
    with pytest.raises(DocumentRejected) as caught:
        parse_html(page, TextLimits(max_text_chars=100))
    assert caught.value.code == code


@pytest.mark.parametrize("opening", ["<div>", "<span>", "<ul><li>", "<table><tr><td>", "<b>", "<blockquote>"])
def test_deep_nesting_is_no_recursion(opening: str):
    assert html(opening * 3000 + "deep").text.endswith("deep")


def test_an_expanding_table_is_bounded():
    cells = ("<td rowspan=99999>" + "word " * 100) * 3
    page = f"<table><tr>{cells}{'<tr><td>x' * 2000}</table>"
    with pytest.raises(DocumentRejected) as caught:
        parse_html(page.encode(), TextLimits(max_text_chars=100_000))
    assert caught.value.code == "document_too_long"
