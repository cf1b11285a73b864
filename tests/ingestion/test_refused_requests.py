"""What a client may do after a refusal: put the request right and send it again."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.conftest import TenantAccess

VARIED = "".join(chr(0x4E00 + 7 * at % 20_000) for at in range(1024))
"""Text that the index over metadata cannot compress."""


async def test_metadata_that_the_index_does_not_take_is_refused_for_good(tenant: TenantAccess) -> None:
    files = {"file": ("note.txt", b"The pier opens at nine.")}
    refused = await tenant.client.post(
        "/v1/documents", files=files, data={"metadata": json.dumps({"subject": VARIED}, ensure_ascii=False)}
    )
    problem = refused.json()
    assert (refused.status_code, problem["code"]) == (422, "invalid_metadata"), refused.text
    assert problem["errors"] == [
        {"pointer": "metadata.subject", "detail": "must be at most 2000 bytes in UTF-8, without NUL"}
    ]
    most = json.dumps({"s" * 64: VARIED[:666]}, ensure_ascii=False)
    taken = await tenant.upload("The pier opens at nine.", metadata=most)
    assert taken["job"]["state"] == "done"


async def test_a_request_that_was_put_right_may_have_the_same_idempotency_key(tenant: TenantAccess) -> None:
    headers = {"Idempotency-Key": "once"}
    for wrong in ({"state": "x"}, {"state": 1}, "not JSON"):
        refused = await tenant.client.post("/v1/jobs/retry", json=wrong, headers=headers)
        assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request"), refused.text
    unread = await tenant.client.post(
        "/v1/jobs/retry", content=b"{", headers={**headers, "Content-Type": "application/json"}
    )
    assert unread.json()["code"] == "invalid_request"
    right = await tenant.client.post("/v1/jobs/retry", json={"state": "failed"}, headers=headers)
    assert (right.status_code, right.json()) == (200, {"retried": 0}), right.text
    again = await tenant.client.post("/v1/jobs/retry", json={"state": "failed"}, headers=headers)
    assert again.headers["Idempotency-Replayed"] == "true"
