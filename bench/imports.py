"""Small documents made by number, imported and looked for: what the benches of ingestion share."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator

from eval.bulk import MAX_DOCUMENTS, NewDocument
from eval.client import TesseraClient, Uploaded

_WORDS = tuple(
    "harbour ledger valve turbine orchard permit clause archive beacon canal inspector schedule invoice freight quarry "  # noqa: SIM905 - words, to be read
    "lantern warden tariff pipeline museum bridge customs vessel gauge boiler registry timber surveyor auction".split()
)
_LOOK_EVERY_S = 0.02
_GIVE_UP_S = 600.0


def text(number: int, words: int = 110) -> str:
    """Return a text of its own for a number; its first sentence holds a word that no other text holds."""
    chance = random.Random(number)
    said = [f"Entry {mark(number)} was recorded by the {chance.choice(_WORDS)} office."]
    while sum(len(sentence.split()) for sentence in said) < words:
        picked = chance.sample(_WORDS, 7)
        said.append(f"The {picked[0]} {picked[1]} of the {picked[2]} needs a {picked[3]} {picked[4]} and {picked[5]}.")
    return " ".join(said)


def mark(number: int) -> str:
    """Return the word that finds a text."""
    return "zq" + "".join(chr(ord("a") + int(digit)) for digit in f"{number:08d}")


def documents(first: int, count: int) -> Iterator[list[NewDocument]]:
    """Yield documents by number, as many together as one request takes."""
    for start in range(first, first + count, MAX_DOCUMENTS):
        numbers = range(start, min(start + MAX_DOCUMENTS, first + count))
        yield [NewDocument(f"{number}.txt", text(number).encode(), f"import-{number}") for number in numbers]


async def send(client: TesseraClient, first: int, count: int) -> list[str]:
    """Import documents, one request after another; return the ids of their jobs."""
    ids: list[str] = []
    for together in documents(first, count):
        for answer in await client.upload_many(together):
            assert isinstance(answer, Uploaded), answer
            assert answer.job is not None
            ids.append(answer.job["id"])
    return ids


async def freshness(client: TesseraClient, number: int) -> tuple[float, float]:
    """Upload one document; return the seconds of the upload itself, and from its 202 until a search finds it."""
    began = time.perf_counter()
    await client.upload(text(number).encode(), filename=f"{number}.txt", external_id=f"single-{number}")
    taken = time.perf_counter()
    while time.perf_counter() - taken < _GIVE_UP_S:
        hits = (await client.search(f"entry {mark(number)}", k=3))["hits"]
        if any(hit["external_id"] == f"single-{number}" for hit in hits):
            return taken - began, time.perf_counter() - taken
        await asyncio.sleep(_LOOK_EVERY_S)
    raise AssertionError(f"document {number} was not found within {_GIVE_UP_S:.0f} s")
