"""RTF: paragraphs, headings by outline level or style, tables as rows, notes beside what they explain."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from ingestion.parse.builder import DocumentBuilder, empty_document
from ingestion.parse.document import ParsedDocument, TextLimits
from ingestion.parse.rejections import damaged, rejected
from ingestion.parse.rtf_flow import Flow
from ingestion.parse.rtf_tokens import Token, codec_of_charset, codec_of_page, decode_run, tokens

_UNREAD = (
    "fonttbl colortbl stylesheet info pict object objdata fldinst nonshppict sp xe tc tcn rxe bkmkstart bkmkend atnid "
    "annotation atnauthor atnref themedata colorschememapping latentstyles datastore generator listtable "
    "listoverridetable revtbl rsidtbl filetbl private xmlnstbl pntxta pntxtb pnseclvl template docvar do mmathPr "
    "background upr ftnsep ftnsepc ftncn aftnsep aftnsepc aftncn"
)
_SKIPPED = frozenset(_UNREAD.split())
_DECLARING = frozenset({"fonttbl", "colortbl", "stylesheet", "upr"})
_MARGINALS = frozenset(side + page for side in ("header", "footer") for page in ("", "l", "r", "f"))
_NOTES = frozenset({"footnote"})
_KEPT_STARRED = frozenset({"shpinst", "shptxt", "shppict"})
_LITERALS = {
    "tab": " ", "line": "\n", "softline": "\n", "lbr": "\n", "~": " ", "_": "-", "emdash": "—", "endash": "–",
    "lquote": "‘", "rquote": "’", "ldblquote": "“", "rdblquote": "”", "bullet": "•", "emspace": " ", "enspace": " ",
    "qmspace": " ", "nestcell": " ", "nestrow": "\n",
}  # fmt: skip
_TOGGLES = {"v": "vanish", "deleted": "deleted"}
_SMALLEST_HALF_POINTS = 2
_MAX_GROUPS = 5000


@dataclass(frozen=True)
class _State:
    """What a group inherits and gives back at its end."""

    flow: str = "body"
    """Where words go: "body", "note", "marginal", "title", "" for nowhere."""
    destination: str = ""
    font: int = -1
    after_unicode: int = 1
    """Characters that repeat a `\\u` for older readers."""
    vanish: bool = False
    deleted: bool = False
    tiny: bool = False
    colour: int = 0
    highlighted: bool = False


@dataclass
class _Tables:
    """The fonts, colours and heading styles that the head of the file declares."""

    page: str = "cp1252"
    default_font: int = -1
    fonts: dict[int, str] = field(default_factory=dict)
    white: set[int] = field(default_factory=set)
    levels: dict[int, int] = field(default_factory=dict)


def parse_rtf(data: bytes, limits: TextLimits) -> ParsedDocument:
    """The body, then (belonging to no section) headers and footers.

    Hidden, deleted and white text, type of 1 pt and less, comments, field codes and embedded objects are left out.
    Raises DocumentRejected: document_empty, document_unreadable, nested_too_deeply, document_too_long.
    """
    if not data.strip():
        raise empty_document()
    if not data.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{\\rtf"):
        raise damaged("RTF document")
    flow = Flow(DocumentBuilder("rtf", limits))
    reader = _Reader(flow)
    for token in tokens(data):
        reader.take(token)
    return flow.finish()


class _Reader:
    """Follows the groups and hands words and ends of paragraphs to the flow."""

    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self._tables = _Tables()
        self._state = _State()
        self._stack: list[_State] = []
        self._bytes = bytearray()
        self._unit = ""
        self._skip = 0
        self._starred = self._opened = False
        self._rgb = [0, 0, 0]
        self._colours = 0
        self._style, self._style_name = 0, ""

    def take(self, token: Token) -> None:
        """Take the next token."""
        if token.text:
            self._text(token)
            return
        self._decode()
        word = token.word
        if word == "{":
            self._open()
        elif word == "}":
            self._close()
        elif word == "*":
            self._starred = True
        else:
            self._word(word, token.value)
            self._opened = self._starred = False

    def _open(self) -> None:
        if len(self._stack) >= _MAX_GROUPS:
            raise rejected("nested_too_deeply")
        self._stack.append(self._state)
        self._opened, self._starred, self._skip = True, False, 0

    def _close(self) -> None:
        ended, self._state = self._state, self._stack.pop() if self._stack else _State()
        self._opened = self._starred = False
        self._skip = 0
        if ended.destination == "stylesheet":
            self._end_style()
        if ended.flow != self._state.flow:
            self._flow.end(ended.flow)

    def _text(self, token: Token) -> None:
        self._opened = False
        text = token.text
        if self._skip:
            skipped = min(self._skip, len(text))
            self._skip -= skipped
            text = text[skipped:]
        if self._state.destination == "colortbl":
            for _ in range(text.count(b";")):
                self._end_colour()
        self._bytes += text

    def _decode(self) -> None:
        """What has gathered becomes words: bytes of one font, which may be two to a character."""
        if not self._bytes:
            return
        font = self._state.font if self._state.font >= 0 else self._tables.default_font
        text = decode_run(bytes(self._bytes), self._tables.fonts.get(font, self._tables.page), self._tables.page)
        self._bytes.clear()
        if self._state.destination == "stylesheet":
            self._style_name += text
        self._say(text)

    def _say(self, text: str) -> None:
        state = self._state
        unseen = state.vanish or state.deleted or state.tiny
        white = state.colour in self._tables.white and not state.highlighted and not self._flow.in_table
        if state.flow and not unseen and not white:
            self._flow.say(state.flow, text)

    def _word(self, word: str, value: int | None) -> None:
        if self._opened and self._destination(word):
            return
        if word == "u" and value is not None:
            self._unicode(value % 65536)
        elif word in _LITERALS:
            self._say(_LITERALS[word])
        elif word in _TOGGLES:
            self._state = replace(self._state, **{_TOGGLES[word]: value != 0})  # type: ignore[arg-type]  # both are bool
        elif self._state.destination:
            self._declare(word, value or 0)
        elif self._state.flow and not self._flow.word(self._state.flow, word, value, self._tables.levels):
            self._format(word, value or 0)
        elif word == "plain":
            self._format(word, 0)

    def _destination(self, word: str) -> bool:
        """Whether the group that `word` opens is one that is read otherwise than its surroundings."""
        if self._state.destination == "upr":  # the same words twice, of which the second are in Unicode
            if word == "ud" and len(self._stack) > 1:
                around = self._stack[-2]
                self._state = replace(self._state, flow=around.flow, destination=around.destination)
        elif word in _SKIPPED or (self._starred and word not in _KEPT_STARRED):
            declares = word if word in _DECLARING else self._state.destination
            self._state = replace(self._state, flow="", destination=declares)
        elif word in _MARGINALS:
            self._state = replace(self._state, flow="marginal" if self._state.flow else "")
        elif word in _NOTES:
            self._state = replace(self._state, flow="note" if self._state.flow else "")
        elif word == "title" and not self._state.flow:
            self._state = replace(self._state, flow="title", destination="")
        else:
            return False
        return True

    def _declare(self, word: str, value: int) -> None:
        destination, tables = self._state.destination, self._tables
        if destination == "fonttbl" and word == "f":
            self._state = replace(self._state, font=value)
        elif destination == "fonttbl" and word == "fcharset":
            tables.fonts[self._state.font] = codec_of_charset(value, tables.page)
        elif destination == "colortbl" and word in ("red", "green", "blue"):
            self._rgb[("red", "green", "blue").index(word)] = value
        elif destination == "stylesheet" and word == "s":
            self._style = value
        elif destination == "stylesheet" and word == "outlinelevel" and value < 9:
            tables.levels[self._style] = min(value + 1, 6)

    def _end_colour(self) -> None:
        if self._rgb == [255, 255, 255]:
            self._tables.white.add(self._colours)
        self._colours += 1
        self._rgb = [0, 0, 0]

    def _end_style(self) -> None:
        name = self._style_name.strip(" ;").lower()
        if name.startswith("heading ") and name[8:9].isdecimal():
            self._tables.levels[self._style] = max(1, min(int(name[8]), 6))
        self._style, self._style_name = 0, ""

    def _format(self, word: str, value: int) -> None:
        """Character properties, and what stands once at the head of the file."""
        if word == "f":
            self._state = replace(self._state, font=value)
        elif word == "uc":
            self._state = replace(self._state, after_unicode=max(0, min(value, 100)))
        elif word == "fs":
            self._state = replace(self._state, tiny=value <= _SMALLEST_HALF_POINTS)
        elif word == "cf":
            self._state = replace(self._state, colour=value)
        elif word in ("highlight", "cb", "chcbpat"):
            self._state = replace(self._state, highlighted=value != 0)
        elif word == "plain":
            self._state = replace(self._state, font=-1, vanish=False, tiny=False, colour=0, highlighted=False)
        elif word == "ansicpg":
            self._tables.page = codec_of_page(value)
        elif word == "deff":
            self._tables.default_font = value

    def _unicode(self, unit: int) -> None:
        """A UTF-16 unit; the characters after it that repeat it are passed over."""
        self._skip = self._state.after_unicode
        if 0xD800 <= unit < 0xDC00:
            self._unit = chr(unit)
            return
        pair, self._unit = self._unit + chr(unit), ""
        self._say(pair.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "ignore"))
