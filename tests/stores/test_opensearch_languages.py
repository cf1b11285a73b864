"""Words of other languages than English, where a document's language is known."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID, uuid4

import pytest

from shards.lexical import ChunkText
from shards.names import lexical_name
from shards.opensearch import OpenSearchLexical
from shards.opensearch_mapping import LANGUAGES, field_of
from shards.settings import LexicalSettings

FORMS = {
    "da": ("Bilerne holder ved havnen.", "bil"),
    "de": ("Die Häuser wurden verkauft.", "Haus"),
    "es": ("Las luces de los barcos.", "luz"),
    "fi": ("Talossa asui kolme perhettä.", "talo"),
    "fr": ("Les chevaux étaient dans les prés.", "cheval"),
    "it": ("Le ragazze leggono i giornali.", "giornale"),
    "nl": ("De fietsen stonden in de straten.", "straat"),
    "no": ("Bilene står ved havnen.", "bil"),
    "pt": ("As reuniões foram canceladas.", "reunião"),
    "ru": ("Книги лежали на столах.", "книга"),
    "sv": ("Bilarna står vid hamnen.", "bil"),
}
"""A sentence, and a form of one of its words that neither its letters nor an English stem find."""


def row(text: str, language: str | None = None) -> ChunkText:
    return ChunkText(uuid4(), 1, "", text, language)


async def ids(store: OpenSearchLexical, index: str, text: str) -> list[UUID]:
    return [hit.chunk_id for hit in await store.search(index, text, k=10, scope=None)]


def test_every_language_is_tried() -> None:
    assert FORMS.keys() == LANGUAGES.keys()


@pytest.mark.parametrize(
    ("tag", "field"),
    [
        ("de", "de"),
        ("de-AT", "de"),
        ("pt_BR", "pt"),
        ("NB", "no"),
        ("en", None),
        ("xx", None),
        ("", None),
        (None, None),
    ],
)
def test_a_tag_chooses_a_field(tag: str | None, field: str | None) -> None:
    assert field_of(tag) == field


async def test_words_are_found_by_forms_of_their_own_language(opensearch: OpenSearchLexical) -> None:
    known, unknown = lexical_name(uuid4()), lexical_name(uuid4())
    rows = {language: row(text, language) for language, (text, _) in FORMS.items()}
    await opensearch.insert(known, list(rows.values()))
    await opensearch.insert(unknown, [replace(one, language=None) for one in rows.values()])
    for language, (_, asked) in FORMS.items():
        assert rows[language].chunk_id in await ids(opensearch, known, asked), language
        assert rows[language].chunk_id not in await ids(opensearch, unknown, asked), f"{language}: shows nothing"
    assert await opensearch.lacking(known, list(rows.values())) == set()
    assert await opensearch.lacking(unknown, list(rows.values())) == {one.chunk_id for one in rows.values()}
    idf = await opensearch.word_idf(known, ["Haus", "zebra"])
    assert idf["Haus"] < idf["zebra"]


async def test_english_words_in_such_a_document_are_found_as_ever(opensearch: OpenSearchLexical) -> None:
    index = lexical_name(uuid4())
    german = row("Unser Onboarding nutzt meetings und Checklisten.", "de")
    await opensearch.insert(index, [german])
    assert await ids(opensearch, index, "meeting") == [german.chunk_id]


async def test_a_language_that_another_process_brings_is_searched_at_once(
    opensearch: OpenSearchLexical, opensearch_settings: LexicalSettings
) -> None:
    index = lexical_name(uuid4())
    await opensearch.insert(index, [row("harbour")])
    assert await ids(opensearch, index, "Haus") == []
    other = OpenSearchLexical(opensearch_settings)
    german = row("Die Häuser wurden verkauft.", "de")
    await other.insert(index, [german])
    await other.aclose()
    assert await ids(opensearch, index, "Haus") == [german.chunk_id]


async def test_a_language_that_comes_leaves_the_order_of_others(opensearch: OpenSearchLexical) -> None:
    """A text counts once for a word, however many fields hold it."""
    index = lexical_name(uuid4())
    rows = [row(f"the ledger of the harbour {'ledger ' * number} {number}") for number in range(9)]
    await opensearch.insert(index, rows)
    before = await opensearch.search(index, "harbour ledger", k=9, scope=None)
    await opensearch.insert(index, [replace(one, language="de") for one in rows])
    assert await opensearch.search(index, "harbour ledger", k=9, scope=None) == before
