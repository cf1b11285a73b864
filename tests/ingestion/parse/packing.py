"""Makes the containers that documents come in: ZIP archives and OLE compound files."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Mapping

from ingestion.parse.document import ParsedDocument, TextLimits
from ingestion.parse.registry import parse_part
from tenants.errors import DocumentRejected

_SECTOR, _MINI, _CUTOFF = 512, 64, 4096
_END, _FREE, _FAT_SECTOR, _NONE = 0xFFFFFFFE, 0xFFFFFFFF, 0xFFFFFFFD, 0xFFFFFFFF


def read(name: str, data: bytes, limits: TextLimits | None = None) -> ParsedDocument:
    """A file as an upload or a part of another is read: its format by its content."""
    return parse_part(name, data, limits or TextLimits())


def refusal(name: str, data: bytes, limits: TextLimits | None = None) -> str:
    """The code that a file is refused with, or its text."""
    try:
        return read(name, data, limits).text
    except DocumentRejected as error:
        return error.code


def packed(parts: Mapping[str, str | bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A ZIP of `parts`, in their order."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        for name, content in parts.items():
            file.writestr(zipfile.ZipInfo(name), content, compress_type=method)
    return buffer.getvalue()


def office(parts: Mapping[str, str], main: str) -> bytes:
    """An OOXML package whose main part is `main`."""
    kind = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument"
    relationships = "http://schemas.openxmlformats.org/package/2006/relationships"
    return packed(
        {
            "[Content_Types].xml": '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"/>',
            "_rels/.rels": f'<Relationships xmlns="{relationships}">'
            f'<Relationship Id="r1" Type="{kind}" Target="{main}"/></Relationships>',
            **parts,
        }
    )


def relationships(**targets: tuple[str, str]) -> str:
    """A relationships part: (last word of the type, target) by id."""
    kind = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/"
    rows = "".join(
        f'<Relationship Id="{key}" Type="{kind}{last}" Target="{target}"/>' for key, (last, target) in targets.items()
    )
    return f'<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">{rows}</Relationships>'


def compound(streams: Mapping[str, bytes]) -> bytes:
    """An OLE compound file of `streams` by path ("storage/stream"), small ones in its mini stream ([MS-CFB])."""
    entries: list[tuple[str, int, bytes]] = [("Root Entry", 5, b"")]
    children: dict[int, list[int]] = {0: []}
    storages = {"": 0}
    for path, content in streams.items():
        folder = ""
        *above, name = path.split("/")
        for part in above:
            below = f"{folder}/{part}"
            if below not in storages:
                storages[below] = len(entries)
                children[storages[folder]].append(len(entries))
                children[len(entries)] = []
                entries.append((part, 1, b""))
            folder = below
        children[storages[folder]].append(len(entries))
        entries.append((name, 2, content))
    mini, mini_fat, starts = _mini_stream(entries)
    sectors: list[bytes] = []
    fat: list[int] = []

    def put(content: bytes) -> int:
        if not content:
            return _END
        first = len(sectors)
        pieces = [content[i : i + _SECTOR].ljust(_SECTOR, b"\0") for i in range(0, len(content), _SECTOR)]
        sectors.extend(pieces)
        fat.extend([*range(first + 1, first + len(pieces)), _END])
        return first

    for index, (_, kind, content) in enumerate(entries):
        if kind == 2 and len(content) >= _CUTOFF:
            starts[index] = put(content)
    starts[0] = put(mini)
    mini_fat_start = put(b"".join(struct.pack("<I", number) for number in mini_fat).ljust(_SECTOR, b"\xff"))
    directory = put(_directory(entries, children, starts, len(mini)))
    fat_sectors = [len(sectors) + i for i in range(-(-(len(fat) + 8) // 128))]
    fat += [_FAT_SECTOR] * len(fat_sectors)
    table = b"".join(struct.pack("<I", number) for number in fat).ljust(len(fat_sectors) * _SECTOR, b"\xff")
    head = struct.pack("<8s16x5H6x", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", 0x3E, 3, 0xFFFE, 9, 6)
    head += struct.pack("<9I", 0, len(fat_sectors), directory, 0, _CUTOFF, mini_fat_start, 1, _END, 0)
    head += b"".join(struct.pack("<I", number) for number in fat_sectors).ljust(_SECTOR - len(head), b"\xff")
    return head + b"".join(sectors) + table


def _mini_stream(entries: list[tuple[str, int, bytes]]) -> tuple[bytes, list[int], dict[int, int]]:
    mini, fat, starts = b"", [], {}
    for index, (_, kind, content) in enumerate(entries):
        if kind == 2 and content and len(content) < _CUTOFF:
            starts[index] = len(fat)
            count = -(-len(content) // _MINI)
            fat += [*range(len(fat) + 1, len(fat) + count), _END]
            mini += content.ljust(count * _MINI, b"\0")
    return mini, fat, starts


def _directory(
    entries: list[tuple[str, int, bytes]], children: dict[int, list[int]], starts: dict[int, int], mini_length: int
) -> bytes:
    right, child = {}, {}
    for parent, below in children.items():
        ordered = sorted(below, key=lambda i: (len(entries[i][0]), entries[i][0].upper()))
        child[parent] = ordered[0] if ordered else _NONE
        right.update(zip(ordered, [*ordered[1:], _NONE], strict=True))
    rows = b""
    for index, (name, kind, content) in enumerate(entries):
        encoded = name.encode("utf-16-le")
        size = mini_length if not index else len(content)
        rows += encoded.ljust(64, b"\0") + struct.pack("<HBB", len(encoded) + 2, kind, 1)
        rows += struct.pack(
            "<3I36xIQ", _NONE, right.get(index, _NONE), child.get(index, _NONE), starts.get(index, _END), size
        )
    return rows.ljust(-(-len(rows) // _SECTOR) * _SECTOR, b"\0")


def pdf_of(*objects: bytes) -> bytes:
    """A PDF of `objects`, numbered from 1; the first is the catalogue."""
    out = b"%PDF-1.4\n"
    offsets = []
    for number, content in enumerate(objects, start=1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    root = b"trailer\n<< /Size %d /Root 1 0 R >>" % (len(objects) + 1)
    head = b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    return out + head + table + root + b"\nstartxref\n%d\n%%%%EOF" % len(out)


def stream(content: bytes, entries: bytes = b"") -> bytes:
    """A stream object."""
    return b"<< /Length %d %s >>\nstream\n%s\nendstream" % (len(content), entries, content)
