"""The answerer of the service: the tenant's model, what that falls back to, and the built-in answerer behind them all.

An answer that was begun is brought to an end: what a model that broke off had let through is checked, so it stays, and
the built-in answerer completes it from the same passages.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace

from rag.answer.check import check_generation
from rag.answer.extractive import ExtractiveGenerator
from rag.answer.figures import GenerationFigures
from rag.answer.generator import (
    AnswerEvent,
    Asked,
    Budget,
    Citation,
    Delta,
    Finished,
    GenerationFailed,
    GenerationInterrupted,
    GenerationUnavailable,
    GenerationUnsupported,
    Generator,
)
from rag.answer.routes import BUILT_IN, ModelChoice
from rag.answer.serving import GenerationState, Server, Servers, Slots
from rag.settings import GenerationSettings
from tenants.context import TenantContext
from tenants.errors import TooManyRequests

_LOOK_S = 2.5
"""Longest that a look at all servers may take who asks how they stand."""


@dataclass
class _Said:
    """What has left so far, and by whom."""

    asked_of: str
    """The model that was asked for."""
    model: str = ""
    text: str = ""
    citations: list[Citation] = field(default_factory=list)
    finished: bool = False
    reason: str = ""
    """Why the built-in has to go on; empty if nothing went wrong."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    """Used by models that did not finish."""

    @property
    def by_another(self) -> bool:
        """Whether another model than that one has written what there is."""
        return self.model != self.asked_of and (self.finished or bool(self.text))

    def note(self, event: AnswerEvent) -> None:
        if isinstance(event, Delta):
            self.text += event.text
        elif isinstance(event, Citation):
            self.citations.append(event)
        else:
            self.finished = True

    def spent(self, error: GenerationFailed) -> None:
        self.prompt_tokens += error.prompt_tokens
        self.completion_tokens += error.completion_tokens


class RoutedGenerator:
    """See `Generator`. It raises neither of the protocol's errors: the built-in answerer is always there."""

    def __init__(
        self,
        choice: ModelChoice,
        servers: Servers | None,
        builtin: ExtractiveGenerator,
        slots: Slots,
        settings: GenerationSettings,
        figures: GenerationFigures,
    ) -> None:
        self.name = choice.default
        self.choice = choice
        self.figures = figures
        self._servers, self._builtin, self._slots = servers, builtin, slots
        self._models: Mapping[str, Generator] = {} if servers is None else servers.models
        self._settings = settings

    async def answer(self, tenant: TenantContext, asked: Asked) -> AsyncGenerator[AnswerEvent, None]:
        """See `Generator`; `Finished.degraded` says what went wrong on the way."""
        said = _Said(self.choice.first(tenant, asked.model))
        chain = self.choice.chain(tenant, asked.model)
        if not asked.passages or chain == [BUILT_IN]:
            chain = []
        else:
            said.reason = "generation"
        async with aclosing(self._by_models(tenant, asked, chain, said)) as events:
            async for event in events:
                said.note(event)
                yield self._told(event, said) if isinstance(event, Finished) else event
        if said.finished:
            return
        if said.reason:
            self.figures.fallbacks[said.reason] += 1
        async with aclosing(self._builtin.go_on(tenant, asked, said.text, said.citations)) as events:
            async for event in events:
                yield self._told(event, said) if isinstance(event, Finished) else event

    @property
    def servers(self) -> Sequence[Server]:
        """The servers of all declared models, as far as this process knows them."""
        return () if self._servers is None else self._servers.replicas

    async def state(self) -> GenerationState:
        """Look at the servers, and say how many of them can be asked: all, some, none, or that none is declared. Those
        that are not started while others are there are not missed."""
        if self._servers is None:
            return "built_in"
        with suppress(TimeoutError):
            async with asyncio.timeout(_LOOK_S):
                await self._servers.look()
        up = [server.up for server in self._servers.expected]
        return "ok" if all(up) else "partly" if any(up) else "away"

    async def check(self) -> None:
        """Ask every server for its models; see `check_generation`, which needs no more than the settings."""
        await check_generation(self._settings)

    async def aclose(self) -> None:
        """Close the connections to the servers."""
        if self._servers is not None:
            await self._servers.aclose()
        await self._builtin.aclose()

    async def _by_models(
        self, tenant: TenantContext, asked: Asked, chain: Sequence[str], said: _Said
    ) -> AsyncGenerator[AnswerEvent, None]:
        if not chain:
            return
        try:
            async with self._slots.taken(tenant.tenant_id):
                clock = asyncio.get_running_loop().time
                begin_by = clock() + self._settings.first_token_timeout_s
                end_by = clock() + self._settings.total_timeout_s
                for place, name in enumerate(chain):
                    if clock() >= begin_by:
                        return
                    # What is left of the time is divided among those that are left.
                    share = (begin_by - clock()) / (len(chain) - place)
                    budget = Budget(clock() + share, end_by)
                    async with aclosing(self._by_model(tenant, replace(asked, budget=budget), name, said)) as events:
                        async for event in events:
                            yield event
                    if said.finished or said.reason != "generation":
                        return
        except TooManyRequests:
            said.reason = "generation_busy"

    async def _by_model(
        self, tenant: TenantContext, asked: Asked, name: str, said: _Said
    ) -> AsyncGenerator[AnswerEvent, None]:
        said.model = name
        try:
            async with aclosing(self._models[name].answer(tenant, asked)) as events:
                async for event in events:
                    yield event
        except GenerationUnsupported as error:
            said.reason = "generation_unsupported"
            said.spent(error)
        except GenerationInterrupted as error:
            said.reason = "generation_interrupted"
            said.spent(error)
        except GenerationUnavailable as error:
            said.spent(error)

    def _told(self, finished: Finished, said: _Said) -> Finished:
        """Return what the client is told at the end: all that went wrong, and what all models have used."""
        degraded = finished.degraded
        if said.reason and not said.finished:
            degraded = (*degraded, said.reason)
        if said.by_another:
            self.figures.fallbacks["generation_model"] += 1
            degraded = (*degraded, "generation_model")
        return replace(
            finished,
            degraded=degraded,
            model=said.model if said.text else finished.model,
            prompt_tokens=finished.prompt_tokens + said.prompt_tokens,
            completion_tokens=finished.completion_tokens + said.completion_tokens,
        )
