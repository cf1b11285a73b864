"""What an OpenSearch index of chunks looks like: fields, analysis, similarity.

Every text is analysed as the tantivy store does it: NFKC, words lowercased, without accents, with English stems, and
scripts without spaces cut into characters and pairs. A text whose language is known is analysed a second time with the
stemmer of its language, into a field of its own.

The similarity is BM25 with k1 1.2 and b 0.75, in two halves. The server computes how a term saturates in a text of its
length, against a mean length that is fixed; how rare the term is comes with the query as a boost (see
`shards.opensearch_query`). Nothing of it is a statistic of the index: in one that tenants share, that would be other
tenants' words, so their documents would change scores here and could be guessed from them.
"""

from __future__ import annotations

from typing import Any

from shards import terms

MAPPING = 1
"""Counted up with every change below. An index of an older one is built again by `LexicalStore.place`."""
LANGUAGES: dict[str, tuple[str, ...]] = {
    "da": ("lowercase", "stem_da"),
    "de": ("lowercase", "german_normalization", "stem_de"),
    "es": ("lowercase", "stem_es"),
    "fi": ("lowercase", "stem_fi"),
    "fr": ("lowercase", "stem_fr"),
    "it": ("lowercase", "stem_it"),
    "nl": ("lowercase", "stem_nl"),
    "no": ("lowercase", "stem_no"),
    "pt": ("lowercase", "stem_pt"),
    "ru": ("lowercase", "stem_ru"),
    "sv": ("lowercase", "stem_sv"),
}
"""Languages with a field of their own, by what their words pass through. The rest has the English field alone."""
_STEMMERS = {
    "da": "danish",
    "de": "light_german",
    "en": "porter2",
    "es": "light_spanish",
    "fi": "finnish",
    "fr": "light_french",
    "it": "light_italian",
    "nl": "dutch",
    "no": "norwegian",
    "pt": "light_portuguese",
    "ru": "russian",
    "sv": "swedish",
}
_ALIASES = {"nb": "no", "nn": "no"}
_LONGEST_WORD = 40
_LONGEST_RUN = 100_000
_MEAN_WORDS, _MEAN_HEADING, _MEAN_GRAMS = 120, 8, 120
"""Mean lengths in terms, of chunks as `ingestion.chunk` cuts them."""


def field_of(language: str | None) -> str | None:
    """Return the field for texts of a language tag (`de`, `pt-BR`), None where there is none."""
    primary = (language or "").replace("_", "-").partition("-")[0].lower()
    primary = _ALIASES.get(primary, primary)
    return primary if primary in LANGUAGES else None


def index_body(*, shards: int, replicas: int) -> dict[str, Any]:
    """Return what an index is created with."""
    return {
        "settings": {
            "index": {
                "number_of_shards": shards,
                # As many as there are other nodes for, so that a single node is not waiting for a second one.
                "auto_expand_replicas": f"0-{replicas}" if replicas else "false",
                "number_of_replicas": 0,
                "translog": {"durability": "request"},
                "similarity": {
                    "words": _similarity(_MEAN_WORDS),
                    "heading": _similarity(_MEAN_HEADING),
                    "grams": _similarity(_MEAN_GRAMS),
                },
                "analysis": _analysis(),
            }
        },
        "mappings": {"_meta": {"tessera": MAPPING}, "dynamic": "strict", "properties": _properties()},
    }


def _similarity(mean: int) -> dict[str, Any]:
    norm = f"1.2 * (0.25 + 0.75 * doc.length / {mean}.0)"
    source = f"return query.boost * 2.2 * doc.freq / (doc.freq + {norm});"
    return {"type": "scripted", "script": {"source": source}}


def _properties() -> dict[str, Any]:
    def analysed(analyzer: str, similarity: str, **more: Any) -> dict[str, Any]:
        return {"type": "text", "analyzer": analyzer, "similarity": similarity, "index_options": "freqs", **more}

    keys = {"owner": {"type": "keyword"}, "chunk_id": {"type": "keyword"}, "version_no": {"type": "long"}}
    english = analysed("en", "words", fields={"grams": analysed("grams", "grams")})
    own = {language: analysed(language, "words") for language in LANGUAGES}
    return {**keys, "language": {"type": "keyword"}, "heading": analysed("en", "heading"), "text": english, **own}


def _analysis() -> dict[str, Any]:
    def words(*filters: str) -> dict[str, Any]:
        return {
            "type": "custom",
            "char_filter": ["without_spaceless"],
            "tokenizer": "words",
            "filter": ["short", *filters],
        }

    by_language = {language: words(*filters, "asciifolding") for language, filters in LANGUAGES.items()}
    grams = {"type": "custom", "char_filter": ["spaceless"], "tokenizer": "runs", "filter": ["characters_and_pairs"]}
    return {
        "char_filter": {
            "without_spaceless": {
                "type": "pattern_replace",
                "pattern": f"[{terms.SPACELESS}]+",
                "replacement": " ",
            },
            "spaceless": {"type": "pattern_replace", "pattern": f"[^{terms.SPACELESS}]+", "replacement": " "},
        },
        "tokenizer": {
            "words": {"type": "pattern", "pattern": r"[^\p{IsAlphabetic}\p{N}]+"},
            "runs": {"type": "whitespace", "max_token_length": _LONGEST_RUN},
        },
        "filter": {
            "short": {"type": "length", "max": _LONGEST_WORD},
            "characters_and_pairs": {"type": "ngram", "min_gram": 1, "max_gram": 2},
            **{f"stem_{code}": {"type": "stemmer", "language": name} for code, name in _STEMMERS.items()},
        },
        "analyzer": {"en": words("lowercase", "asciifolding", "stem_en"), "grams": grams, **by_language},
    }
