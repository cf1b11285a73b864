"""Keys as they are given: a file that one was written to often ends in a newline."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, SecretStr


def _stripped(key: SecretStr) -> SecretStr:
    return SecretStr(key.get_secret_value().strip())


def _sendable(key: SecretStr) -> SecretStr:
    said = key.get_secret_value()
    if not (said.isascii() and said.isprintable()):
        raise ValueError("it has a character that no key of a server may have, such as a newline or an umlaut")
    return key


StrippedKey = Annotated[SecretStr, AfterValidator(_stripped)]
"""Without the white space around it."""
HeaderKey = Annotated[StrippedKey, AfterValidator(_sendable)]
"""A key that is sent in a header, which takes printable ASCII alone."""
