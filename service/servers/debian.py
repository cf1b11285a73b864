"""Debian packages without root: downloaded by apt with its own keys and unpacked into a folder of the cache.

Nothing of the system is touched: apt gets folders of its own for its lists and downloads, and installs nothing.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from service.servers.cache import Cache
from service.servers.commands import run

LISTS = "apt-lists"
ARCHIVES = "var/cache/apt"


def has_apt() -> bool:
    """Say whether this machine can fetch Debian packages."""
    return bool(shutil.which("apt-get") and shutil.which("dpkg-deb"))


def release() -> str:
    """Return the release of Debian that this is, "" for everything else."""
    file = Path("/etc/os-release")
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    fields = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    return fields.get("VERSION_ID", "").strip('"') if fields.get("ID") == "debian" else ""


def package_tree(cache: Cache, packages: str) -> Path:
    """Return the folder that holds packages and what they need beyond what is installed, unpacked as below `/`.

    Args:
        cache: where the folder is.
        packages: names with blanks between; the folder is named after the first.

    Raises:
        FetchFailed: the sources of this machine have no such package.
    """
    made_of = f"Debian's {packages} and what they need"
    return cache.once(tree_of(packages), made_of, lambda to: _unpack(cache, packages, to))


def tree_of(packages: str) -> str:
    """Return the name of the folder in the cache."""
    return f"debian-{packages.split()[0]}"


def _unpack(cache: Cache, packages: str, folder: Path) -> None:
    lists = cache.once(LISTS, "the lists of Debian packages", _update)
    apt = _apt(lists, folder / ARCHIVES)
    simulated = run([*apt, "--simulate", "--no-install-recommends", "install", *packages.split()])
    missing = dict(re.findall(r"^Inst (\S+) (?:\[\S+\] )?\((\S+)", simulated, re.MULTILINE))
    # Those that are asked for are fetched though they be installed.
    exact = [name for name in packages.split() if name not in missing]
    exact += [f"{name}={version}" for name, version in missing.items()]
    downloads = folder / "packages"
    downloads.mkdir()
    run([*apt, "download", *exact], cwd=downloads)
    for archive in sorted(downloads.glob("*.deb")):
        run(["dpkg-deb", "--extract", str(archive), str(folder)])
    shutil.rmtree(downloads)
    _keep_links_inside(folder)


def _update(folder: Path) -> None:
    (folder / "partial").mkdir()
    run([*_apt(folder, folder / ARCHIVES), "update"])


def _apt(lists: Path, archives: Path) -> list[str]:
    (archives / "archives" / "partial").mkdir(parents=True, exist_ok=True)
    options = {
        "Dir::State::Lists": str(lists),
        "Dir::Cache": str(archives),
        "APT::Sandbox::User": "root",
        "Debug::NoLocking": "1",
    }
    return ["apt-get", "-qq", *(word for name, value in options.items() for word in ("-o", f"{name}={value}"))]


def _keep_links_inside(folder: Path) -> None:
    """Point links to `/...` at the same place below the folder, where there is something."""
    for path in folder.rglob("*"):
        if path.is_symlink() and (target := path.readlink()).is_absolute():
            inside = folder / target.relative_to("/")
            if inside.exists() or inside.is_symlink():
                path.unlink()
                path.symlink_to(inside)


def libraries(tree: Path) -> list[Path]:
    """Return the folders of shared libraries below an unpacked tree."""
    return [path for path in (tree / "usr/lib/x86_64-linux-gnu", tree / "lib/x86_64-linux-gnu") if path.is_dir()]
