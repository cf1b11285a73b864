"""The commands of tenants, keys, documents and questions, each as a process against the real service."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

TEXT = "# Harbour\n\n## Closing time\n\nThe harbour closes at 19:00 in summer.\n"


def test_a_tenant_and_its_keys(run: Callable[..., Any], read: Callable[..., Any]) -> None:
    slug = f"cli-{secrets.token_hex(4)}"
    assert "Created" in run("tenant", "create", slug, "--name", "Größe & Co", "--bm25-weight", "0.4").stdout
    assert "existed already" in run("tenant", "create", slug, "--name", "Größe & Co", "--bm25-weight", "0.4").stdout
    found = read("tenant", "get", slug)
    assert (found["name"], found["settings"]) == ("Größe & Co", {"bm25_weight": 0.4})
    assert slug in [tenant["slug"] for tenant in read("tenant", "list")]

    made = run("key", "create", slug, "--name", "web", "--expires-in", "30d")
    assert re.fullmatch(r"tsr_live_\w+\n", made.stdout)
    assert "only time" in made.stderr
    listed = read("key", "list", slug)
    assert [(key["name"], "key" in key) for key in listed] == [("web", False)]
    key = made.stdout.strip()
    assert read("documents", "list", key=key) == []

    kept = read("tenant", "set", slug, "--keep-versions", "3", "--max-age-days", "30")["settings"]
    assert kept == {"bm25_weight": 0.4, "retention": {"keep_versions": 3, "max_age_days": 30}}
    models = read("tenant", "set", slug, "--model", "extractive", "--model", "extractive")["settings"]
    assert (models["generation_models"], models["retention"]) == (["extractive"] * 2, kept["retention"])
    assert "unknown_model" in run("tenant", "set", slug, "--model", "no-such-model", ok=False).stderr
    kept = read("tenant", "set", slug, "--max-age-days", "0", "--name", "Größe")
    assert (kept["name"], kept["settings"]["retention"]) == ("Größe", {"keep_versions": 3})
    assert "Say what to change" in run("tenant", "set", slug, ok=False).stderr
    assert read("fsck", slug)[slug]["total"] == 0
    assert f"{slug}: 0 differences" in run("fsck", slug, "--repair", "--deep").stdout
    assert "--all" in run("fsck", ok=False).stderr

    assert read("tenant", "suspend", slug)["state"] == "suspended"
    assert "tenant_suspended" in run("documents", "list", key=key, ok=False).stderr
    assert read("tenant", "resume", slug)["state"] == "active"
    run("key", "revoke", slug, listed[0]["id"])
    assert "invalid_key" in run("documents", "list", key=key, ok=False).stderr

    assert run("tenant", "delete", slug, stdin="n\n", ok=False).stdout.strip() == ""
    receipt = run("tenant", "delete", slug, stdin="y\n").stdout
    assert re.search(r"rows: api_keys +1\n", receipt)
    assert "not_found" in run("tenant", "get", slug, ok=False).stderr


async def test_a_document_is_found_asked_about_and_deleted(
    run: Callable[..., Any], read: Callable[..., Any], tenant: Any, tmp_path: Path
) -> None:
    path = tmp_path / "harbour.md"
    path.write_text(TEXT)
    run("upload", str(path), "--external-id", "port", "--title", "Harbour rules", key=tenant.key)
    assert "Harbour rules" in run("documents", "list", "--state", "active", key=tenant.key).stdout
    assert read("documents", "list", "--filter", '{"format": {"eq": "pdf"}}', key=tenant.key) == []
    assert [chunk["headings"][-1] for chunk in read("documents", "chunks", "port", key=tenant.key)] == ["Closing time"]

    assert run("documents", "download", "port", "-o", "-", key=tenant.key).stdout == TEXT
    run("documents", "download", "port", key=tenant.key, cwd=tmp_path / "..", ok=True)
    assert "file_exists" in run("documents", "download", "port", key=tenant.key, cwd=tmp_path, ok=False).stderr

    shown = run("search", "When does the harbour close?", "-k", "1", key=tenant.key).stdout
    assert "Closing time" in shown
    assert "19:00" in shown
    answer = read("ask", "When does the harbour close?", key=tenant.key)
    for way in ("--stream", "--no-stream"):
        ended = run("ask", "When does the harbour close?", way, key=tenant.key)
        assert ended.stdout.startswith(answer["answer"])
        assert re.search(r"^\[1\] Harbour rules", ended.stdout, re.MULTILINE)
        assert "--conversation" in ended.stderr

    assert "nothing of it is left" in run("documents", "delete", "port", key=tenant.key).stdout
    assert "not_found" in run("documents", "get", "port", key=tenant.key, ok=False).stderr
    assert "Nothing was found" in run("search", "When does the harbour close?", key=tenant.key).stdout


async def test_a_refusal_is_one_sentence_with_code_and_request(run: Callable[..., Any], tenant: Any) -> None:
    ended = run("search", "x", "--filter", '{"team": {"like": "x"}}', "--json", key=tenant.key, ok=False, fresh=True)
    assert ended.stdout == ""
    assert re.fullmatch(
        r"tessera: The filter is not valid: filter\.team\.like .*\(invalid_filter, request [0-9a-f-]{36}\)\n",
        " ".join(ended.stderr.split()) + "\n",
    )


def test_nothing_at_the_address_is_said_plainly(run: Callable[..., Any]) -> None:
    ended = run("search", "x", "--url", "http://127.0.0.1:9", "--key", "tsr_live_x", ok=False, fresh=True)
    assert "http://127.0.0.1:9 cannot be reached" in ended.stderr
    assert "Traceback" not in ended.stderr


async def test_jobs_are_listed_watched_and_tried_again(
    run: Callable[..., Any], read: Callable[..., Any], tenant: Any, tmp_path: Path
) -> None:
    good, bad = tmp_path / "good.md", tmp_path / "bad.pdf"
    good.write_text(TEXT)
    bad.write_text("This is no PDF.")
    ended = run("upload", str(good), str(bad), key=tenant.key, ok=False)
    assert "document_unreadable" in ended.stdout
    [failed] = read("jobs", "list", "--state", "failed", key=tenant.key)
    shown = run("jobs", "list", key=tenant.key).stdout
    assert failed["id"] in shown
    assert "document_unreadable:" in " ".join(shown.split())
    assert "0 queued again" in run("jobs", "retry", "--code", "parser_timeout", key=tenant.key).stdout
    assert "1 queued again" in run("jobs", "retry", "--code", "document_unreadable", key=tenant.key).stdout
    assert "failed: document_unreadable" in run("jobs", "watch", failed["id"], key=tenant.key, ok=False).stdout
    assert "job_ended" in run("jobs", "cancel", failed["id"], key=tenant.key, ok=False).stderr
    assert read("jobs", "show", failed["id"], key=tenant.key)["attempts"] == 1
