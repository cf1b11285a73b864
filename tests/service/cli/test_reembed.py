"""Moving a tenant to another embedding model or chunking from the command line."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.conftest import TenantAccess


async def test_a_tenant_is_moved_and_says_so(
    run: Callable[..., Any], read: Callable[..., Any], tenant: TenantAccess
) -> None:
    await tenant.upload("The pilot boat leaves at six. " * 40)
    assert read("shards", "show", tenant.slug)["embedding_model"] == "all-MiniLM-L6-v2"
    assert "--model" in run("shards", "reembed", tenant.slug, ok=False).stderr
    moved = run(
        "shards", "reembed", tenant.slug, "--model", "all-MiniLM-L6-v2-float32", "--chunk-tokens", "60", "--wait"
    )
    assert "all-MiniLM-L6-v2-float32" in moved.stdout
    shown = read("shards", "show", tenant.slug)
    assert (shown["embedding_model"], shown["chunk_tokens"], shown["next"]) == ("all-MiniLM-L6-v2-float32", 60, None)
    assert shown["rows"] > 3
    assert "chunks of at most 60 tokens" in run("shards", "show", tenant.slug).stdout
    for wish in ("pause", "resume", "cancel"):
        assert "not being moved" in run("shards", wish, tenant.slug, ok=False).stderr
    assert "all-MiniLM-L6-v2-float32" in run("shards", "reembed", tenant.slug, "--model", "moon", ok=False).stderr
