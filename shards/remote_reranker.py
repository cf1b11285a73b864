"""A reranker behind a server of `/rerank`: `TESSERA_SEARCH_RERANKER=remote:<model>`.

Two forms of it are spoken: that of Cohere, Jina and vLLM (`query`, `documents`; `results` with `index` and
`relevance_score`), and that of TEI (`query`, `texts`; a list with `index` and `score`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import aclosing
from functools import partial
from typing import Any, Literal

from pydantic import SecretStr

from shards.model_server import Away, ModelServer, Patience, Refusal, by_itself, in_halves
from tenants.errors import Misconfigured, Unavailable

Form = Literal["cohere", "tei"]
CODE = "reranker_unavailable"
_QUESTION_CHARACTERS = 2000
_PASSAGE_CHARACTERS = 8000
"""What is asked is cut to this: passages are not that long, and one question must not cost the tenant its reranker."""


class RemoteReranker:
    """Scores the passages of a question within a budget of time, with one request where the server takes so many."""

    def __init__(
        self, model: str, addresses: Sequence[str], key: SecretStr, *, form: Form, budget_s: float, at_once: int
    ) -> None:
        self.name = f"remote:{model}"
        self._model, self._form = model, form
        self._budget_s = budget_s
        patience = Patience(connect_s=budget_s, answer_s=budget_s, total_s=budget_s, swift=True)
        self._server = ModelServer(f"The reranker {model!r}", addresses, key, patience, code=CODE, at_once=at_once)
        self._addresses = addresses
        self._at = partial(RemoteReranker, model, key=key, form=form, budget_s=budget_s, at_once=at_once)

    async def scores(self, question: str, passages: Sequence[str]) -> list[float]:
        """Return one relevance score a passage; higher is better, on a scale of the model's own.

        Raises:
            Unavailable: it does not answer within the budget, or not for each passage (`reranker_unavailable`).
        """
        if not passages:
            return []
        until = time.monotonic() + self._budget_s

        async def ask(some: Sequence[str]) -> list[float]:
            return await self._scored(question, some, until)

        return await in_halves(ask, passages)

    async def _scored(self, question: str, passages: Sequence[str], until: float) -> list[float]:
        answer = await self._server.ask("/rerank", self._body(question, passages), until=until)
        try:
            rows = answer["results"] if self._form == "cohere" else answer
            found = {int(row["index"]): float(row[_SCORE[self._form]]) for row in rows}
        except (KeyError, TypeError, ValueError) as error:
            raise self._server.away("its answer cannot be read") from error
        if found.keys() != set(range(len(passages))) or not all(map(math.isfinite, found.values())):
            raise self._server.away(f"it gave {len(found)} scores for {len(passages)} passages")
        return [found[at] for at in range(len(passages))]

    async def check(self) -> None:
        """Have each server score a pair.

        Raises:
            Misconfigured: the key, the model or the form is refused, or the address is none; names the setting.
            Unavailable: none answers.
        """
        await by_itself(self._addresses, self._check)

    async def _check(self, address: str) -> None:
        try:
            async with aclosing(self._at([address])) as alone:
                await alone.scores("What is amber?", ["Amber is resin.", "Salt is a mineral."])
        except Refusal as error:
            setting = "TESSERA_SEARCH_RERANK_KEY" if error.answered in (401, 403) else "TESSERA_SEARCH_RERANKER"
            setting = f"{_FORMS}, {setting}" if error.of_content else setting
            raise Misconfigured(f"{setting} or TESSERA_SEARCH_RERANK_URL is wrong: {error.why}") from error
        except Away as error:
            if error.lasts:
                raise Misconfigured(f"TESSERA_SEARCH_RERANK_URL cannot be asked: {error.why}.") from error
            raise Unavailable(f"{error.detail} {error.why}", code=CODE) from error

    async def aclose(self) -> None:
        """Close the connections."""
        await self._server.aclose()

    def _body(self, question: str, passages: Sequence[str]) -> dict[str, Any]:
        query, texts = question[:_QUESTION_CHARACTERS], [passage[:_PASSAGE_CHARACTERS] for passage in passages]
        if self._form == "tei":
            return {"query": query, "texts": texts, "truncate": True}
        return {"model": self._model, "query": query, "documents": texts, "top_n": len(texts)}


_FORMS = "TESSERA_SEARCH_RERANK_FORM (`tei` for text-embeddings-inference, else `cohere`)"
_SCORE: dict[Form, str] = {"cohere": "relevance_score", "tei": "score"}
