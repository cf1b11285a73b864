"""HTML: what a reader sees of a page, without its navigation, in reading order."""

from __future__ import annotations

import re
from collections.abc import Iterator

from selectolax.lexbor import LexborHTMLParser, LexborNode

from ingestion.parse.builder import DocumentBuilder
from ingestion.parse.decode import decode_text
from ingestion.parse.document import ParsedDocument, TextLimits
from ingestion.parse.html_blocks import (
    BLOCKS,
    DROPPED,
    HEADINGS,
    children,
    data_table,
    hidden,
    inline_text,
    is_plain_list,
    list_lines,
)
from ingestion.parse.html_depth import refuse_deep
from ingestion.parse.tables import markdown_table
from ingestion.parse.xml_tree import declared_encoding

_CHARSET = re.compile(rb"<meta[^>]{0,400}?\bcharset\s*=\s*[\"']?\s*([\w.:-]{2,40})", re.I)
_DECLARED_WITHIN = 256 * 1024

_BOILERPLATE = frozenset({"nav", "footer"})
_BOILERPLATE_ROLES = frozenset({"navigation", "contentinfo", "search", "menu", "menubar"})
_CONTENT = frozenset({"main", "article", "section"})
_BLANKS = re.compile(r"[^\S\n]+")
_BREAKS = re.compile(r" ?\n ?")


def parse_html(data: bytes, limits: TextLimits) -> ParsedDocument:
    """Headings, paragraphs, lists, tables and code of the page's content.

    Scripts, styles, comments, hidden elements, `alt` texts, navigation and the page's own header and footer are left
    out; when nothing else is there, navigation, header and footer are taken after all. The title is that of
    `<title>`, or the only `h1` when `<title>` merely adds the site's name to it.
    """
    text = decode_text(data, _declared(data))
    refuse_deep(text)
    tree = LexborHTMLParser(text)
    root = tree.body or tree.root
    page = _Page(DocumentBuilder("html", limits), boilerplate=False)
    if root is not None:
        page.walk(root)
        if page.builder.empty:
            page = _Page(DocumentBuilder("html", limits), boilerplate=True)
            page.walk(root)
    page.builder.title = _title(tree)
    return page.builder.build()


def _declared(data: bytes) -> str | None:
    match = _CHARSET.search(data, 0, _DECLARED_WITHIN)
    return declared_encoding(data) or (match[1].decode("ascii") if match else None)


def _title(tree: LexborHTMLParser) -> str | None:
    node = tree.css_first("head > title")
    title = " ".join(node.text().split()) if node is not None else ""
    headings = [inline_text(heading) for heading in tree.css("h1")[:2]]
    if len(headings) == 1 and headings[0] and (not title or headings[0].casefold() in title.casefold()):
        return headings[0]
    return title or None


class _Page:
    """Walks the tree without recursion (hostile pages nest deep) and hands blocks to the builder."""

    def __init__(self, builder: DocumentBuilder, *, boilerplate: bool) -> None:
        self.builder = builder
        self._boilerplate = boilerplate
        self._words: list[str] = []
        self._content_depth = 0

    def walk(self, root: LexborNode) -> None:
        """Add everything below `root`."""
        stack: list[LexborNode | str] = [root]
        while stack:
            item = stack.pop()
            if isinstance(item, str):
                self._leave(item)
            elif item.is_text_node:
                self._words.append(_BLANKS.sub(" ", (item.text_content or "").replace("\n", " ")))
            elif item.is_element_node and self._enter(item):
                tag = item.tag or ""
                if tag in BLOCKS:
                    if tag != "dd":  # a definition stays with its term
                        self._flush()
                    stack.append(tag)
                stack.extend(reversed(list(children(item))))
        self._flush()

    def _enter(self, node: LexborNode) -> bool:
        """Take `node` as a whole, or answer that its children are to be walked."""
        tag = node.tag or ""
        if tag in DROPPED or hidden(node) or (not self._boilerplate and self._is_boilerplate(node, tag)):
            return False
        if tag == "br":
            self._words.append("\n")
            return False
        if tag in HEADINGS:
            self._flush()
            self.builder.add("heading", inline_text(node), level=int(tag[1]))
            return False
        if tag in ("pre", "table", "ul", "ol", "menu"):
            self._flush()
            return not self._added(node, tag)
        if tag in _CONTENT:
            self._content_depth += 1
        return True

    def _added(self, node: LexborNode, tag: str) -> bool:
        if tag == "pre":
            self.builder.add("code", node.text())
            return True
        if tag == "table":
            rows = data_table(node)
            if rows is None:
                return False
            for caption in node.css("caption"):
                self.builder.add("paragraph", inline_text(caption))
            self.builder.add("table", markdown_table(rows))
            return True
        if is_plain_list(node):
            self.builder.add("list", "\n".join(list_lines(node)))
            return True
        return False

    def _is_boilerplate(self, node: LexborNode, tag: str) -> bool:
        role = (node.attributes.get("role") or "").lower()
        if tag in _BOILERPLATE or role in _BOILERPLATE_ROLES:
            return True
        if (tag == "header" or role == "banner") and not self._content_depth:
            for heading in node.css("h1"):
                self._flush()
                self.builder.add("heading", inline_text(heading), level=1)
            return True
        return False

    def _leave(self, tag: str) -> None:
        if tag in _CONTENT:
            self._content_depth -= 1
        if tag == "dt" and "".join(self._words).strip():
            self._words.append(": ")
        else:
            self._flush()

    def _flush(self) -> None:
        text, self._words = "".join(self._words), []
        for paragraph in _paragraphs(text):
            self.builder.add("paragraph", paragraph)


def _paragraphs(text: str) -> Iterator[str]:
    """`<br><br>` parts paragraphs, one `<br>` parts lines."""
    if not text.strip():
        return iter(())
    text = _BREAKS.sub("\n", _BLANKS.sub(" ", text))
    return iter(re.split(r"\n{2,}", text))
