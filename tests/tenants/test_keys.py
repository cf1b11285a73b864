from __future__ import annotations

import math
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenants import keys
from tenants.errors import Unauthenticated

BASE62 = string.digits + string.ascii_letters


def test_a_new_key_is_taken_apart_into_what_it_was_made_of() -> None:
    parts, key = keys.generate_key()
    assert keys.parse_key(key) == parts
    assert key.startswith(f"tsr_live_{parts.id}_{parts.secret}")


def test_the_secret_has_at_least_160_random_bits() -> None:
    secrets = [keys.generate_key()[0].secret for _ in range(200)]
    assert len(set(secrets)) == len(secrets)
    assert len(secrets[0]) * math.log2(len(BASE62)) >= 160
    assert set("".join(secrets)) == set(BASE62)


@given(place=st.integers(0, 200), replacement=st.sampled_from(BASE62))
def test_any_single_mistyped_character_is_noticed(place: int, replacement: str) -> None:
    _, key = keys.generate_key()
    place %= len(key)
    wrong = key[:place] + replacement + key[place + 1 :]
    if wrong == key:
        return
    with pytest.raises(Unauthenticated) as raised:
        keys.parse_key(wrong)
    assert raised.value.code == "malformed_key"


@pytest.mark.parametrize("text", ["", "tsr_live_", "Bearer x", "tsr_live_a_b_c", "é" * 59, "tsr_live_" + "_" * 60])
def test_what_is_not_a_key_is_refused(text: str) -> None:
    with pytest.raises(Unauthenticated):
        keys.parse_key(text)


def test_the_digest_depends_on_secret_and_pepper() -> None:
    assert keys.digest("pepper", "secret") == keys.digest("pepper", "secret")
    assert keys.digest("pepper", "secret") != keys.digest("pepper2", "secret")
    assert keys.digest("pepper", "secret") != keys.digest("pepper", "secret2")
    assert b"secret" not in keys.digest("pepper", "secret")
