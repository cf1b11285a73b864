"""Bytes become text in the right encoding, or not at all."""

from __future__ import annotations

import pytest

from ingestion.parse.decode import decode_text
from tenants.errors import DocumentRejected

_SAMPLES = {
    "cp1252": "Die Müller können über äöüß gehen und naïve Fragen stellen.",
    "cp1251": "Агентство недвижимости основано в 1999 году и работает в городе.",
    "koi8-r": "Агентство недвижимости основано в 1999 году и работает в городе.",
    "cp932": "吾輩は猫である。名前はまだ無い。どこで生れたか頓と見当がつかぬ。",
    "gb18030": "北京是中国的首都，也是全国的政治和文化中心，人口很多。",
    "big5": "臺北是臺灣的首都，人口很多，交通也很方便。",
    "cp949": "대한민국의 수도는 서울이다. 인구가 많고 교통이 편리하다.",
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-le", "utf-16-be"])
def test_unicode_with_and_without_a_mark(encoding: str):
    text = "Opening hours: nine to five. Zürich.\n" * 3
    assert decode_text(text.encode(encoding)) == text


@pytest.mark.parametrize("encoding", sorted(_SAMPLES))
def test_legacy_encodings_are_guessed(encoding: str):
    assert decode_text(_SAMPLES[encoding].encode(encoding)) == _SAMPLES[encoding]


@pytest.mark.parametrize("encoding", sorted(_SAMPLES))
def test_declared_encodings_are_believed(encoding: str):
    assert decode_text(_SAMPLES[encoding].encode(encoding), encoding) == _SAMPLES[encoding]


def test_a_label_means_its_windows_superset():
    assert decode_text("“quoted” – naïve".encode("cp1252"), "ISO-8859-1") == "“quoted” – naïve"


def test_a_stateful_encoding_is_believed_although_its_bytes_are_ascii():
    assert decode_text("日本語".encode("iso2022_jp"), "iso-2022-jp") == "日本語"


def test_utf8_wins_over_a_wrong_label():
    assert decode_text("Zürich – naïve".encode(), "iso-8859-1") == "Zürich – naïve"


@pytest.mark.parametrize(
    "label", ["no-such-charset", "utf-7", "rot13", "unicode_escape", "Raw-Unicode-Escape", "idna", "utf-16", "", "hex"]
)
def test_labels_that_are_unknown_or_dangerous_are_ignored(label: str):
    assert decode_text(b"plain +AGE- \\u0041", label) == "plain +AGE- \\u0041"
    assert decode_text(b"caf\xe9 +AGE- \\u0041", label) == "café +AGE- \\u0041"


@pytest.mark.parametrize(
    "data",
    [
        bytes(range(256)) * 20,
        b"\x7fELF\x02\x01\x01" + b"\0" * 500,
        b"text" + b"\0" * 50,
        b"\xef\xbb\xbfbroken \xff\xfe\xfd",
        bytes((i * 7919 + i // 3 * 104729) % 256 for i in range(4000)),
    ],
)
def test_binary_content_is_refused(data: bytes):
    with pytest.raises(DocumentRejected) as caught:
        decode_text(data)
    assert caught.value.code == "document_encoding"
