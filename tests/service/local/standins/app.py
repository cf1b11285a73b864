"""Stands in for the API: ready at once, and tells what it was given."""

import json
import os
import sys


async def answer(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    body = json.dumps(dict(os.environ)).encode() if scope["path"] == "/environment" else b"{}"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


def create_app(settings, drain):
    if os.environ.get("TESSERA_STANDIN_FAILS"):
        sys.exit("the setting is wrong")
    return answer
