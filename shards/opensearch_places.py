"""Where an index of ours lies on an OpenSearch server: the alias of its name, and the physical index behind it.

Readers and writers know the alias alone. Behind it is the tenant's own index, or one that tenants share; then the alias
has the tenant's routing, so that a search visits one shard. A move copies the entries into the other place, compares
the counts, and swaps the alias in one step of the cluster's. A search sees the one or the other, never both or none.

Everything here is done under the tenant's writer lock, and can be cut off at any point: what was begun is cleared away
by the next attempt, because only what the alias points to counts. Two more aliases have the tenant's name: of the place
that a move writes to (`-building-` and a number of the move's own), and of a shared index in which one left rows
(`-left-` and the second).
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

from opensearchpy import RequestError

from shards.lexical import DamagedIndex
from shards.names import INDEX, bucket_of
from shards.opensearch_mapping import MAPPING, index_body
from shards.opensearch_query import owned
from shards.opensearch_server import MissingIndex, OpenSearchServer, away, whole
from shards.settings import LexicalSettings

_COPIED_AT_ONCE = 2_000
_REMOVED_AT_ONCE = 5_000
_CONFLICTS = 5
_NAMES_AT_ONCE = 1_000
_IF_THERE = {"ignore_unavailable": "true"}
"""For a request that names several places: those that are not there hold nothing."""


@dataclass(frozen=True)
class Where:
    """The physical index behind an alias, and the version of its mapping."""

    physical: str
    shared: bool
    mapping: int


class Places:
    """Physical indexes and aliases of one installation."""

    def __init__(self, server: OpenSearchServer, settings: LexicalSettings) -> None:
        self._server = server
        self._settings = settings
        prefix = re.escape(settings.prefix)
        self._alias = re.compile(rf"{prefix}({INDEX.pattern})")
        self._own = re.compile(rf"{prefix}({INDEX.pattern})-own-[0-9a-f]{{8}}")
        self._every = f"{settings.prefix}*"
        self._every_shared = f"{settings.prefix}shared-*"

    def alias(self, index: str) -> str:
        """Return the name by which an index is read and written."""
        return f"{self._settings.prefix}{index}"

    def everywhere(self, index: str) -> str:
        """Return all places in which an index may have entries, for requests with a filter of their own: behind the
        alias, and where a move left them."""
        return f"{self.alias(index)},{self._every_shared}"

    async def where(self, index: str) -> Where | None:
        """Return what is behind the alias, None when there is none.

        Raises:
            DamagedIndex: somebody else put more than one index behind it.
        """
        try:
            found = await self._server.call(lambda client: client.indices.get_mapping(index=self.alias(index)))
        except MissingIndex:
            return None
        if len(found) != 1 or self.alias(index) in found:
            raise DamagedIndex(f"{self.alias(index)} is not an alias of one index: {', '.join(found)}")
        [(physical, about)] = found.items()
        made = int(about["mappings"].get("_meta", {}).get("tessera", 0))
        return Where(physical, self._own.fullmatch(physical) is None, made)

    async def place(self, index: str, *, shared: bool) -> bool:
        """See `LexicalStore.place`."""
        now = await self.where(index)
        if now is not None and now.shared == shared and now.mapping >= MAPPING:
            return False
        target = await self._prepared(index, shared, now)
        if now is not None:
            await self._copy(now.physical, target, index)
        await self._point(index, target, shared, now)
        if now is not None and not now.shared:  # a search that is under way fails on it and is made again
            await self._delete(now.physical)
        return now is not None and now.shared

    async def tidy(self, index: str, *, grace: timedelta) -> None:
        """See `LexicalStore.tidy`."""
        left = await self._aliases(self.alias(f"{index}-left-*"))
        if any(time.time() - int(name.rpartition("-")[2]) < grace.total_seconds() for name in left):
            return
        now = await self.where(index)
        await self._clear(index, keep=now.physical if now else None)

    async def drop(self, index: str) -> bool:
        """Remove an index and whatever a move of it, or somebody else, left anywhere under its name; return whether
        there was anything."""
        named = await self._unname(self.alias(index))
        await self._delete(self.alias(index))
        return bool(await self._clear(index, keep=None)) or named

    async def names(self, beginning: str) -> list[str]:
        """Return the names, with this beginning, of all indexes of which there is anything, sorted: an alias, an own
        index, rows of a shared one."""
        names = self.alias(f"{beginning}*")
        known = {match[1] for physical in await self._listed(names) if (match := self._own.fullmatch(physical))}
        known |= {match[1] for name in await self._aliases(names) if (match := self._alias.fullmatch(name))}
        after: Mapping[str, Any] = {}
        while True:
            page = await self._owners(beginning, after)
            known |= {bucket["key"]["owner"] for bucket in page["buckets"]}
            after = page.get("after_key", {})
            if not after:
                return sorted(name for name in known if INDEX.fullmatch(name))

    async def count(self, index: str, matching: Mapping[str, Any]) -> int:
        """Return how many entries of an index match, wherever they lie."""
        place, body = self.everywhere(index), {"query": owned(index, dict(matching))}
        answer = await self._server.call(lambda client: client.count(index=place, body=body, params=_IF_THERE))
        return int(whole(answer)["count"])

    async def remove(self, place: str, query: Mapping[str, Any]) -> int:
        """Remove what matches from aliases and indexes, as far as they are there, some at a time; return how many
        entries there were.

        Raises:
            Unavailable: somebody else changed the entries again and again meanwhile.
        """
        removed, conflicts = 0, 0
        options: dict[str, Any] = {"conflicts": "proceed", "refresh": "true", "max_docs": _REMOVED_AT_ONCE} | _IF_THERE
        await self._server.call(lambda client: client.indices.refresh(index=place, params=_IF_THERE))
        while True:
            answer = await self._server.call(
                lambda client: client.delete_by_query(index=place, body={"query": query}, params=options)
            )
            if answer["failures"] or answer["timed_out"]:
                raise away("The lexical index could not remove everything.")
            removed += int(answer["deleted"])
            if answer["version_conflicts"]:
                conflicts += 1
                if conflicts > _CONFLICTS:
                    raise away("The lexical index is written to while it is being removed from.")
            elif answer["total"] < _REMOVED_AT_ONCE:
                return removed

    async def _prepared(self, index: str, shared: bool, now: Where | None) -> str:
        """Return the physical index for entries to come, without any of them: what is there a broken attempt left."""
        await self._unname(self.alias(f"{index}-building-*"))  # a copy that still runs there has nowhere to write
        await self._delete_stray(index, keep=now.physical if now else None)
        if not shared:
            target = f"{self.alias(index)}-own-{uuid4().hex[:8]}"
            await self._create(target, self._settings.shards)
            return target
        bucket = bucket_of(UUID(index[2:34]), self._settings.shared_indexes)
        target = f"{self._settings.prefix}shared-{MAPPING}-{bucket}"
        if not await self._create(target, self._settings.shared_shards):
            await self.remove(target, owned(index))
        return target

    async def _create(self, physical: str, shards: int) -> bool:
        """Make an index; return False when it is there already."""
        body = index_body(shards=shards, replicas=self._settings.replicas)
        try:
            await self._server.call(lambda client: client.indices.create(index=physical, body=body))
        except RequestError as error:
            if error.error != "resource_already_exists_exception":
                raise
            return False
        return True

    async def _copy(self, source: str, target: str, index: str) -> None:
        """Copy an index's entries and compare the counts. In slices by the first digits of the chunk id, so that every
        request is short."""
        await self._server.call(lambda client: client.indices.refresh(index=source))
        total = await self._count(source, index)
        # The copy goes to an alias that is there for its time, because an index that is gone would be made anew.
        building = self.alias(f"{index}-building-{uuid4().hex[:8]}")
        routed = self._own.fullmatch(target) is None
        about = _about(index, routed)
        await self._server.call(lambda client: client.indices.put_alias(index=target, name=building, body=about))
        digits = 0
        while total > _COPIED_AT_ONCE * 16**digits:
            digits += 1
        for number in range(16**digits):
            await self._copy_slice(source, building, index, f"{number:0{digits}x}" if digits else "", routed)
        await self._server.call(lambda client: client.indices.refresh(index=target))
        copied = await self._count(target, index)
        await self._server.call(lambda client: client.indices.delete_alias(index=target, name=building))
        if copied != total:
            raise away(f"The lexical index {index} could not be moved: {copied} of {total} entries.")

    async def _copy_slice(self, source: str, target: str, index: str, digits: str, routed: bool) -> None:
        chosen = [{"prefix": {"chunk_id": digits}}] if digits else []
        body = {
            "source": {"index": source, "query": owned(index, *chosen), "size": 500},
            "dest": {"index": target, "routing": f"={index}" if routed else "discard"},
        }
        answer = await self._server.call(
            lambda client: client.reindex(body=body, params={"require_alias": "true", "refresh": "false"})
        )
        if answer["failures"] or answer["timed_out"]:
            raise away(f"The lexical index {index} could not be moved.")

    async def _point(self, index: str, target: str, shared: bool, now: Where | None) -> None:
        """Let the alias name the target alone, in one step."""
        alias = self.alias(index)
        actions: list[dict[str, Any]] = [{"add": {"index": target, "alias": alias, **_about(index, shared)}}]
        if now is not None:
            actions.insert(0, {"remove": {"index": now.physical, "alias": alias, "must_exist": True}})
        if now is not None and now.shared:
            left = {"index": now.physical, "alias": f"{alias}-left-{int(time.time())}", **_about(index, True)}
            actions.append({"add": left})
        await self._server.call(lambda client: client.indices.update_aliases(body={"actions": actions}))

    async def _clear(self, index: str, *, keep: str | None) -> int:
        """Remove everything of an index that is not in the physical index `keep`; return how much."""
        removed = await self._delete_stray(index, keep=keep)
        for physical in await self._listed(self._every_shared):
            if physical != keep:
                removed += await self.remove(physical, owned(index))
        await self._unname(self.alias(f"{index}-*"))
        return removed

    async def _delete_stray(self, index: str, *, keep: str | None) -> int:
        """Delete an index's own physical indexes other than `keep`."""
        found = await self._listed(f"{self.alias(index)}-own-*")
        strays = [physical for physical in found if physical != keep and self._own.fullmatch(physical)]
        for physical in strays:
            await self._delete(physical)
        return len(strays)

    async def _aliases(self, pattern: str) -> set[str]:
        """Return the aliases of a pattern."""
        try:
            found = await self._server.call(lambda client: client.indices.get_alias(index=self._every, name=pattern))
        except MissingIndex:  # there is none
            return set()
        return {name for about in found.values() for name in about["aliases"]}

    async def _unname(self, pattern: str) -> bool:
        """Remove the aliases of a pattern from whatever they name; return whether there were any."""
        try:
            await self._server.call(lambda client: client.indices.delete_alias(index=self._every, name=pattern))
        except MissingIndex:
            return False
        return True

    async def _listed(self, pattern: str) -> list[str]:
        """Return the physical indexes of a pattern."""
        rows = await self._server.call(
            lambda client: client.cat.indices(index=pattern, params={"format": "json", "h": "index"})
        )
        return [row["index"] for row in rows]

    async def _delete(self, physical: str) -> None:
        try:
            await self._server.call(lambda client: client.indices.delete(index=physical))
        except MissingIndex:
            return

    async def _count(self, physical: str, index: str) -> int:
        answer = await self._server.call(lambda client: client.count(index=physical, body={"query": owned(index)}))
        return int(whole(answer)["count"])

    async def _owners(self, beginning: str, after: Mapping[str, Any]) -> Mapping[str, Any]:
        composite: dict[str, Any] = {"size": _NAMES_AT_ONCE, "sources": [{"owner": {"terms": {"field": "owner"}}}]}
        if after:
            composite["after"] = after
        some = {"prefix": {"owner": beginning}}
        body = {"size": 0, "query": some, "aggs": {"owners": {"composite": composite}}}
        answer = await self._server.call(lambda client: client.search(index=self._every_shared, body=body))
        found: Mapping[str, Any] = whole(answer).get("aggregations", {}).get("owners", {"buckets": []})
        return found


def _about(index: str, routed: bool) -> dict[str, Any]:
    """Return what an alias of an index's says beside its name: whose entries it shows, and in which shard they lie."""
    return {"filter": {"term": {"owner": index}}, **({"routing": index} if routed else {})}
