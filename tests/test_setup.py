"""The locks: they hold what pyproject.toml declares and no more than is needed, with hashes, from no named index."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path

import install
import lock
import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = tomllib.loads(install.PROJECT.read_text())
LOCKS = {path.name: install.blocks(path.read_text()) for path in (install.BASE, install.DEV, install.IMAGE)}
LOCAL = PROJECT["project"]["optional-dependencies"]["local"]
GROUPS = {
    install.BASE.name: PROJECT["project"]["dependencies"] + PROJECT["dependency-groups"]["setup"] + LOCAL,
    install.IMAGE.name: PROJECT["project"]["dependencies"],
    install.DEV.name: PROJECT["dependency-groups"]["dev"],
}


def locked_versions(*names: str) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for block in (block for name in names for block in LOCKS[name]):
        found.setdefault(block.name, set()).add(block.text.split("==")[1].split()[0])
    return found


@pytest.mark.parametrize("name", list(GROUPS))
def test_what_is_declared_is_locked_in_a_version_that_fits(name: str) -> None:
    locked = locked_versions(*({install.BASE.name, name} if name == install.DEV.name else {name}))
    for requirement in map(Requirement, GROUPS[name]):
        versions = locked.get(canonicalize_name(requirement.name), set())
        assert versions, f"{requirement} is not locked: run `make lock`"
        assert all(requirement.specifier.contains(version) for version in versions), f"{requirement}: {versions}"


def test_a_package_is_in_one_lock_only() -> None:
    base, dev = ({block.name for block in LOCKS[path.name]} for path in (install.BASE, install.DEV))
    assert base & dev == set()


def test_the_image_has_what_the_checkout_has_but_for_the_servers_and_the_tools_of_the_set_up() -> None:
    base, image = ({block.name: block.text for block in LOCKS[path.name]} for path in (install.BASE, install.IMAGE))
    assert image.items() <= base.items(), "run `make lock`"
    left_out = {canonicalize_name(Requirement(one).name) for one in [*LOCAL, *PROJECT["dependency-groups"]["setup"]]}
    assert left_out <= base.keys() - image.keys()


@pytest.mark.parametrize("name", list(LOCKS))
def test_a_lock_has_hashes_and_names_no_place(name: str) -> None:
    lines = (install.ROOT / name).read_text().splitlines()
    entry = re.compile(r"[a-z0-9][a-z0-9.-]*==[^ ]+( ; [^\\]+)? \\|    --hash=sha256:[0-9a-f]{64}( \\)?|# .*")
    assert [line for line in lines if not entry.fullmatch(line)] == []
    assert all("--hash=" in block.text for block in LOCKS[name])


def test_what_nobody_needs_is_left_out() -> None:
    excluded = {line.split("#")[0].strip() for line in lock.EXCLUDED.read_text().splitlines()} - {""}
    assert {"sentence-transformers", "huggingface-hub", "setuptools"} <= excluded
    assert locked_versions(*LOCKS).keys() & (excluded | {"torch", "transformers"}) == set()


@pytest.mark.parametrize("name", list(LOCKS))
def test_the_size_of_the_download_is_known_beforehand(name: str) -> None:
    text = (install.ROOT / name).read_text()
    wheels, download, unpacked = install.announced(text)
    environment = {**default_environment(), "extra": ""}
    here = [block for block in LOCKS[name] if lock.applies(block, environment["python_full_version"])]
    assert abs(wheels - len(here)) <= 1  # one package is for Python 3.11.0 to 3.11.2 only
    assert 0 < download < unpacked


def test_the_weight_of_another_python_is_not_made_up() -> None:
    assert install.announced("# linux x86-64 python 3.9: 1 wheels, 2 bytes, 3 unpacked\n") == (0, 0, 0)


def test_markers_are_read_for_the_python_that_is_weighed() -> None:
    old, new = install.blocks(
        "a==1 ; python_full_version < '3.12' \\\n    --hash=sha256:0\n"
        "a==2 ; python_full_version >= '3.12' \\\n    --hash=sha256:1 \\\n    --hash=sha256:2\n"
    )
    assert [lock.applies(old, "3.11.2"), lock.applies(new, "3.11.2")] == [True, False]
    assert [lock.applies(old, "3.12.3"), lock.applies(new, "3.12.3")] == [False, True]
    assert lock.unmarked(new) == "a==2 \\\n    --hash=sha256:1 \\\n    --hash=sha256:2"


def test_uv_is_told_what_pip_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = tmp_path / "pip.conf"
    settings.write_text(
        "[global]\nindex-url = https://one.example/simple\ncert = /etc/one.pem\n[install]\nno-index = no\n"
    )
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", str(settings))
    monkeypatch.setenv("PIP_CERT", "/etc/two.pem")
    monkeypatch.setenv("PIP_FIND_LINKS", "/wheels /more")
    told = install.uv_settings()
    assert told["UV_DEFAULT_INDEX"] == "https://one.example/simple"
    assert told["UV_FIND_LINKS"] == "/wheels,/more"
    assert told["SSL_CERT_FILE"] == "/etc/two.pem"
