"""What is read out of feeds, sitemaps and pages, and what is refused in them."""

from __future__ import annotations

import gzip
import io
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingestion.sources.entries import bounded_key
from ingestion.sources.feed import read_feed
from ingestion.sources.files import is_wanted
from ingestion.sources.links import links_of
from ingestion.sources.sitemap import read_sitemap, unpacked
from tenants.errors import SourceFailed

URL = "https://example.com/news/feed.xml"
ATOM = """<?xml version="1.0" encoding="utf-8"?>
<feed xmlns="http://www.w3.org/2005/Atom" xmlns:media="http://search.yahoo.com/mrss/">
 <title>Feed</title>
 <entry><id>urn:1</id><title type="html">A &lt;b&gt;bold&lt;/b&gt; one</title>
  <link rel="self" href="/self"/><link href="../first"/><updated>2026-01-02T03:04:05Z</updated>
  <media:content url="x.png"/><media:title>picture</media:title>
  <content type="html">&lt;p&gt;First.&lt;/p&gt;</content><summary>short</summary></entry>
 <entry><id>urn:2</id><title>Two</title><content type="xhtml"><div xmlns="http://www.w3.org/1999/xhtml">
  <p>Second.</p></div></content></entry>
 <entry><id>urn:3</id><title>Three</title><summary>1 &lt; 2</summary></entry>
</feed>"""
RSS = """<?xml version="1.0" encoding="iso-8859-1"?>
<!DOCTYPE rss PUBLIC "-//Netscape Communications//DTD RSS 0.91//EN" "http://my.netscape.com/publish/formats/rss-0.91.dtd">
<rss version="2.0" xmlns:content="http://purl.org/rss/1.0/modules/content/"><channel><title>Caf\xe9</title>
 <item><guid isPermaLink="false"> g1 </guid><title>Th\xe9</title><link>https://example.com/1</link>
  <pubDate>Fri, 02 Jan 2026 03:04:05 GMT</pubDate>
  <description>Short.</description><content:encoded><![CDATA[<p>Long &amp; whole.</p>]]></content:encoded></item>
 <item><title>Only a title</title></item>
 <item><link>/rel</link><description>By its link.</description></item>
</channel></rss>"""
RDF = """<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns="http://purl.org/rss/1.0/">
 <channel><title>Old</title></channel>
 <item rdf:about="https://example.com/a"><title>Old one</title><link>https://example.com/a</link></item></rdf:RDF>"""


def test_atom_is_read() -> None:
    one, two, three = read_feed(URL, io.BytesIO(ATOM.encode()))
    assert (one.key, one.place, one.metadata["published"]) == (
        "urn:1",
        "https://example.com/first",
        "2026-01-02T03:04:05Z",
    )
    assert b"<p>First.</p>" in (one.content or b"")
    assert b"Second." in (two.content or b"")
    assert b"1 &lt; 2" in (three.content or b""), "plain text is no markup"


def test_rss_is_read_in_its_encoding() -> None:
    one, two, three = read_feed(URL, io.BytesIO(RSS.encode("iso-8859-1")))
    assert (one.key, one.title, one.metadata["url"]) == ("g1", "Thé", "https://example.com/1")
    assert b"<p>Long &amp; whole.</p>" in (one.content or b"")
    assert len(two.key) == 64, "an entry without any name is known by what it says"
    assert three.key == "https://example.com/rel"


def test_old_rss_is_read() -> None:
    [one] = read_feed(URL, io.BytesIO(RDF.encode()))
    assert (one.key, one.title) == ("https://example.com/a", "Old one")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("<!doctype html><html><body>hi<br></body></html>", "HTML"),
        ("<html xmlns='http://www.w3.org/1999/xhtml'><body/></html>", "HTML"),
        ("", "well-formed"),
        ('{"items": []}', "well-formed"),
        ("<rss><channel><item>", "well-formed"),
        ("<urlset></urlset>", "urlset"),
        ("<!DOCTYPE r [<!ENTITY a 'aaaa'>]><rss>&a;</rss>", "entities"),
        ("<!DOCTYPE r [<!ENTITY a SYSTEM 'file:///etc/passwd'>]><rss>&a;</rss>", "entities"),
        ("<?xml version='1.0' encoding='no-such'?><rss/>", "well-formed"),
    ],
)
def test_what_is_no_feed_is_refused_and_said(content: str, why: str) -> None:
    with pytest.raises(SourceFailed) as caught:
        list(read_feed(URL, io.BytesIO(content.encode())))
    assert caught.value.code == "source_wrong_type"
    assert why in caught.value.detail


def test_a_feed_that_breaks_off_gives_its_entries_and_then_fails() -> None:
    found = read_feed(URL, io.BytesIO(RSS.encode("iso-8859-1")[:-40]))
    assert next(found).key == "g1"
    with pytest.raises(SourceFailed):
        list(found)


def test_a_sitemap_is_read() -> None:
    content = (
        "<urlset xmlns='http://www.sitemaps.org/schemas/sitemap/0.9'><url><loc> https://e.com/a?x=1&amp;y=2 </loc>"
        "<lastmod>2026-01-01</lastmod><image><loc>https://e.com/no</loc></image></url><url><loc>b</loc></url></urlset>"
    )
    assert list(read_sitemap(URL, io.BytesIO(content.encode()))) == [
        (False, "https://e.com/a?x=1&y=2", "2026-01-01"),
        (False, "b", None),
    ]


_BESIDE = 60_000


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("<rss><channel>", "<item><guid>g</guid></item></channel></rss>"),
        ("<rss><channel><image>", "</image><item><guid>g</guid></item></channel></rss>"),
        ("<feed>", "<entry><id>g</id></entry></feed>"),
        ("<urlset>", "<url><loc>g</loc></url></urlset>"),
        ("<urlset><other>", "</other><url><loc>g</loc></url></urlset>"),
    ],
)
def test_what_is_beside_the_entries_takes_no_memory(before: str, after: str) -> None:
    content = io.BytesIO(f"{before}{'<a>b</a>' * (_BESIDE // 4)}{after}".encode())
    read = read_sitemap if "urlset" in before else read_feed
    tracemalloc.start()
    try:
        assert len(list(read(URL, content))) == 1
        assert tracemalloc.get_traced_memory()[1] < 600_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (f"<rss><channel><item>{'<a/>' * _BESIDE}</item></channel></rss>", "source_too_large"),
        (f"<rss><channel><item>{'<a>' * 2000}{'</a>' * 2000}</item></channel></rss>", "source_wrong_type"),
        (f"<rss>{'<a>' * 2000}{'</a>' * 2000}</rss>", "source_wrong_type"),
    ],
)
def test_an_entry_without_measure_is_refused(content: str, code: str) -> None:
    with pytest.raises(SourceFailed) as caught:
        list(read_feed(URL, io.BytesIO(content.encode())))
    assert caught.value.code == code


def test_an_entry_in_an_entry_is_a_part_of_it() -> None:
    items = "<item><guid>1</guid><item><guid>2</guid></item></item><item><guid>3</guid></item>"
    content = io.BytesIO(f"<rss><channel>{items}</channel></rss>".encode())
    assert [entry.key for entry in read_feed(URL, content)] == ["1", "3"]


def test_an_index_is_told_from_a_sitemap() -> None:
    content = "<sitemapindex><sitemap><loc>https://e.com/1.xml.gz</loc></sitemap></sitemapindex>"
    assert list(read_sitemap(URL, io.BytesIO(content.encode()))) == [(True, "https://e.com/1.xml.gz", None)]


def test_a_packed_sitemap_is_bounded_unpacked() -> None:
    with unpacked(URL, io.BytesIO(gzip.compress(b"<urlset/>")), 100) as content:
        assert content.read() == b"<urlset/>"
    with pytest.raises(SourceFailed) as caught:
        unpacked(URL, io.BytesIO(gzip.compress(bytes(1_000_000))), 100_000)
    assert caught.value.code == "source_too_large"


def test_links_are_those_a_reader_would_follow() -> None:
    html = (
        "<base href='/docs/'><a href='a.html#x'>a</a><A HREF=\"//e.com/b\">b</A><a href='mailto:x'>m</a><a>none</a>"
        "<a rel='nofollow noopener' href='/no'>n</a><a href='javascript:x()'>j</a><a href='http://[bad'>bad</a>"
        "<a href='?q=1'>q</a>"
    )
    assert links_of(html, "https://example.com/start") == [
        "https://example.com/docs/a.html",
        "https://e.com/b",
        "https://example.com/docs/?q=1",
    ]


HREF = "<a href=/x>"


@pytest.mark.parametrize(
    ("html", "links"),
    [
        ("<![foo[ x ]]>", []),
        (f"<![CDATA[ x ]]>{HREF}", ["/x"]),
        (f"<!-- {HREF} --><!-->{HREF}", ["/x"]),
        (f"<!-- {HREF} --!>", []),
        (f"<!doctype html><?php x ?></><//>{HREF}", ["/x"]),
        (f"<script>'{HREF}'</script ><style>{HREF}</STYLE><TEXTAREA>{HREF}</textareas>{HREF}", []),
        (f"<title>{HREF}</title><svg/>{HREF}", ["/x"]),
        (f"<p title='>{HREF}'>{HREF}</p>", ["/x"]),
        (f"<p title='{HREF}", []),
        ("<a href='/x' href='/y'>", ["/x"]),
        ("<a\nHREF = /x/>", ["/x/"]),
        ("<a/href=/x?a=1&amp;b=2&#13;>", ["/x?a=1&b=2"]),
        ("<a <a href=/x>", ["/x"]),
        ("<a =href=/x><a ==/x><a href><a href=>", [""]),
        ("<a href=&#" + "9" * 5000 + ";><a href=http://[foo]/><a href=http://e\u2100.com/>", []),
        ("<a href='/x\0'>", ["/x\ufffd"]),
        ("<base href=/a/><base href=/b/><a href=x>", ["/a/x"]),
        ("</a href=/x><abbr href=/x><area href=/x>< a href=/x>", []),
        ("1 < 2 <3 <<a href=/x>", ["/x"]),
    ],
)
def test_links_are_told_from_what_looks_like_them(html: str, links: list[str]) -> None:
    start = "https://example.com/start"
    assert links_of(html, start) == [f"https://example.com{link or '/start'}" for link in links]


@pytest.mark.parametrize(
    "repeated",
    ["<a ", "<a a=", "<a/", "<a href='", '<a a="x" ', "<!--", "<![x", "</", "<script>", "<a", "<", "<!-- -", "a = "],
)
def test_links_of_a_hostile_page_take_time_with_its_length(repeated: str) -> None:
    """With its square, each of these would take hours."""
    assert links_of("<a " + repeated * 300_000, URL) == []


@given(st.text(alphabet="<>/!-?='\"& ahreftscipt[]:#x;\n", max_size=60))
@settings(max_examples=300)
def test_no_page_is_too_odd_for_its_links(html: str) -> None:
    assert all(link.startswith(("http:", "https:")) for link in links_of(html, URL))


@given(st.lists(st.text(min_size=1).map(lambda text: text * 30), min_size=2, max_size=3, unique=True))
@settings(max_examples=50)
def test_keys_are_bounded_printable_and_different(texts: list[str]) -> None:
    keys = [bounded_key(text) for text in texts]
    assert len(set(keys)) == len(texts)
    for key in keys:
        assert len(key) <= 400
        assert key.isprintable()
        key.encode()


@pytest.mark.parametrize(
    ("path", "include", "wanted"),
    [
        ("docs/a.md", [], True),
        ("docs/A.PDF", [], True),
        ("src/a.py", [], False),
        (".git/a.md", [], False),
        ("docs/.a.md", [], False),
        ("src/a.py", ["*.py"], True),
        ("src/deep/a.py", ["src/*.py"], True),
        ("docs/a.md", ["src/*"], False),
        ("docs/a.md", ["a.md"], True),
    ],
)
def test_which_files_are_taken(path: str, include: list[str], wanted: bool) -> None:
    assert is_wanted(path, include) == wanted
