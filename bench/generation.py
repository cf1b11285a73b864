"""100 concurrent chats on four replicas, healthy and with one slow and one that dies; prints one JSON line.

    python -m bench.generation [--clients 100] [--chats 10] [--ramp 3] [--servers URL URL ... --model NAME]

Four stand-ins for a model's servers (`tests/rag/answer/model_server.py`), each a process of its own, answer the same
question with checked sentences: first token after 0.4 s and 2 ms for each request that runs there, then twenty
characters every 0.3 s. The clients begin within three seconds, as long as a chat takes, so that they do not go in step;
the service knows nothing of its replicas yet. Each asks one chat after the other. In the second run one replica takes
ten times as long to its first token, and another one is killed (SIGKILL) after a third of the chats. Bars: no chat
without a whole answer, none that the built-in answerer wrote alone, and the p95 of the first token at most 1.3 times
that of the healthy replicas; the same for the first text that the client sees, which is checked by then.

With `--servers` real ones are asked in one run, without bars: a model of random weights writes nothing that passes the
checks, so every answer is the built-in's, and the first token alone says something.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import httpx
import numpy as np

from bench.local_stack import print_line
from rag.answer.build import build_generator
from rag.answer.figures import GenerationFigures
from rag.answer.generator import Asked, Delta, Finished
from rag.answer.routed import RoutedGenerator
from rag.settings import GenerationSettings
from shards.embed import Embedder, load_embedder
from shards.settings import EmbedSettings
from tenants.context import TenantContext
from tenants.errors import TesseraError
from tests.rag.answer.conftest import LEAVE, QUESTION, TRAVEL, slots_of

FIRST_S, PER_REQUEST_S, PACE_S, SLOW_S = 0.4, 0.002, 0.3, 4.0
TENANTS = 20
BAR = 1.3


@dataclass
class Seen:
    """What the clients saw of one run, in seconds."""

    first_tokens: list[float] = field(default_factory=list)
    first_texts: list[float] = field(default_factory=list)
    failed: int = 0
    degraded: Counter[str] = field(default_factory=Counter)

    def summary(self, generator: RoutedGenerator) -> dict[str, Any]:
        return {
            "chats": len(self.first_texts),
            "failed": self.failed,
            "first_token_s": quantiles(self.first_tokens),
            "first_text_s": quantiles(self.first_texts),
            "degraded": dict(self.degraded),
            "retries": dict(generator.figures.retries),
        }


@dataclass
class KeptFigures(GenerationFigures):
    """The figures of a process, and each first token by itself."""

    kept: list[float] = field(default_factory=list)

    def first_token(self, model: str, seconds: float) -> None:
        self.kept.append(seconds)
        super().first_token(model, seconds)


def quantiles(seconds: Sequence[float]) -> dict[str, float]:
    return {f"p{percent}": round(float(np.percentile(seconds, percent)), 3) for percent in (50, 95, 99)}


def start(first_token_s: float) -> tuple[str, subprocess.Popen[bytes]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = {"port": port, "first-token": first_token_s, "per-request": PER_REQUEST_S, "pace": PACE_S}
    options = [text for name, value in words.items() for text in (f"--{name}", str(value))]
    child = subprocess.Popen([sys.executable, "-m", "tests.rag.answer.model_server", *options])
    return f"http://127.0.0.1:{port}/v1", child


@asynccontextmanager
async def replicas(first_tokens: Sequence[float]) -> AsyncIterator[tuple[list[str], list[subprocess.Popen[bytes]]]]:
    started = [start(seconds) for seconds in first_tokens]
    urls, children = [url for url, _ in started], [child for _, child in started]
    try:
        async with httpx.AsyncClient() as client:
            for url in urls:
                for _ in range(600):
                    try:
                        await client.get(f"{url}/models")
                        break
                    except httpx.HTTPError:
                        await asyncio.sleep(0.1)
        yield urls, children
    finally:
        for child in children:
            child.kill()
            child.wait()


async def one_chat(generator: RoutedGenerator, embedder: Embedder, tenant: TenantContext, seen: Seen) -> None:
    query = await embedder.embed_query(QUESTION)
    asked = Asked(QUESTION, [LEAVE, TRAVEL], [], {}, query)
    began, first, finished = time.perf_counter(), 0.0, None
    try:
        async with aclosing(generator.answer(tenant, asked)) as events:
            async for event in events:
                if isinstance(event, Delta) and not first:
                    first = time.perf_counter() - began
                if isinstance(event, Finished):
                    finished = event
    except TesseraError:
        finished = None
    if finished is None or finished.abstained or "27 days" not in finished.answer:
        seen.failed += 1
        return
    seen.first_texts.append(first)
    if set(finished.degraded) & {"generation", "generation_busy"}:
        # No model's token is counted in such a chat: what the client saw first was the built-in's.
        seen.first_tokens.append(first)
    seen.degraded.update(finished.degraded)


async def run(
    urls: Sequence[str],
    embedder: Embedder,
    clients: int,
    chats: int,
    *,
    ramp_s: float,
    model: str = "standin",
    victim: subprocess.Popen[bytes] | None = None,
) -> dict[str, Any]:
    settings = GenerationSettings(base_urls=list(urls), model=model)
    seen, tenants = Seen(), [TenantContext(uuid4(), f"t{number}", "bench") for number in range(TENANTS)]
    figures, slots = KeptFigures(kept=seen.first_tokens), slots_of(settings)
    generator = build_generator(settings, embedder, secret="the secret of a bench", slots=slots, figures=figures)

    async def client(number: int) -> None:
        await asyncio.sleep(ramp_s * number / clients)
        for _ in range(chats):
            await one_chat(generator, embedder, tenants[number % TENANTS], seen)
            if victim is not None and len(seen.first_texts) >= clients * chats // 3:
                victim.send_signal(signal.SIGKILL)

    began = time.perf_counter()
    await asyncio.gather(*(client(number) for number in range(clients)))
    took = time.perf_counter() - began
    await generator.aclose()
    return seen.summary(generator) | {"seconds": round(took, 1)}


def whole(found: dict[str, Any]) -> bool:
    """Whether every chat of a run was answered, by a model and not by the built-in answerer alone."""
    builtin = {"generation", "generation_busy", "generation_unsupported"}
    return found["failed"] == 0 and not builtin & found["degraded"].keys()


async def bench(clients: int, chats: int, ramp_s: float, servers: Sequence[str], model: str) -> dict[str, Any]:
    embedder = load_embedder(EmbedSettings())
    await embedder.embed_passages([LEAVE.text])
    if servers:
        return {"real": await run(servers, embedder, clients, chats, ramp_s=ramp_s, model=model)}
    async with replicas([FIRST_S] * 4) as (urls, _):
        healthy = await run(urls, embedder, clients, chats, ramp_s=ramp_s)
    async with replicas([SLOW_S, FIRST_S, FIRST_S, FIRST_S]) as (urls, children):
        faulty = await run(urls, embedder, clients, chats, ramp_s=ramp_s, victim=children[1])
    ratios = {name: faulty[name]["p95"] / healthy[name]["p95"] for name in ("first_token_s", "first_text_s")}
    return {
        "clients": clients,
        "healthy": healthy,
        "faulty": faulty,
        "p95_ratio": {name: round(ratio, 2) for name, ratio in ratios.items()},
        "bar": BAR,
        "good": all(whole(one) for one in (healthy, faulty)) and max(ratios.values()) <= BAR,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--chats", type=int, default=10)
    parser.add_argument("--ramp", type=float, default=3.0)
    parser.add_argument("--servers", nargs="*", default=[])
    parser.add_argument("--model", default="tiny")
    given = parser.parse_args()
    print_line(asyncio.run(bench(given.clients, given.chats, given.ramp, given.servers, given.model)))
