"""Lock the dependencies: `make lock`, or `make lock UPGRADE=1` to take the newest versions.

Writes `requirements.lock` (what runs, and what sets it up), `requirements-dev.lock` (what tests need beyond it) and
`requirements-image.lock` (the part of the first that a container image takes: no servers, no tools of the set-up):
exact versions for every platform and Python with the hashes of their wheels, and no address of an index. Each begins
with what `install.py` tells before it downloads: how many wheels and bytes that is on Linux x86-64.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from install import BASE, DEV, IMAGE, ROOT, UV, Block, blocks, uv_settings
from packaging.markers import Marker

EXCLUDED = ROOT / "setup" / "excluded.txt"
PYTHONS = ("3.11.2", "3.12.3")
"""What is weighed, and where a missing wheel is an error: Debian 12, Ubuntu 24.04."""
GLIBC = 36
"""Of Debian 12: wheels that need a newer one count as missing."""
LARGEST = 10

TITLE = "# Written by `make lock`. Wheels are checked against these hashes; sources are never built."


@dataclass(frozen=True)
class Weight:
    """The wheels of one lock on one Python; `largest` are (bytes, file name)."""

    python: str
    wheels: int
    download: int
    unpacked: int
    largest: tuple[tuple[int, str], ...]

    def line(self) -> str:
        """The line of the lock that `install.announced` reads."""
        version = ".".join(self.python.split(".")[:2])
        return f"# linux x86-64 python {version}: {self.wheels} wheels, {self.download} bytes, {self.unpacked} unpacked"


def main(arguments: Sequence[str]) -> None:
    """Resolve the locks, download every wheel once to weigh it, write the files."""
    parser = argparse.ArgumentParser(description="Lock the dependencies of Tessera.")
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions instead of the locked ones")
    upgrade = parser.parse_args(arguments).upgrade
    resolve(BASE, upgrade=upgrade, more=["pyproject.toml", "--extra", "local", *group("setup")])
    resolve(DEV, upgrade=upgrade, more=[*group("dev"), "--constraints", str(BASE)])
    resolve(IMAGE, upgrade=upgrade, more=["pyproject.toml", "--constraints", str(BASE)])
    locked = {block.name for block in blocks(BASE.read_text())}
    for path, leave_out in ((BASE, set[str]()), (DEV, locked), (IMAGE, set[str]())):
        kept = [block for block in blocks(path.read_text()) if block.name not in leave_out]
        weights = [weigh(kept, python) for python in PYTHONS]
        lines = [TITLE, *(weight.line() for weight in weights), *(block.text for block in kept)]
        path.write_text("\n".join(lines) + "\n")
        report(path, weights[0])


def group(name: str) -> list[str]:
    """Return the words that ask for a dependency group of pyproject.toml."""
    return ["--group", f"pyproject.toml:{name}"]


def resolve(path: Path, *, upgrade: bool, more: Iterable[str]) -> None:
    """Write the exact versions and hashes of what `more` asks for to `path`."""
    command = [str(UV), "pip", "compile", "--quiet", "--universal", "--python-version", "3.11", "--generate-hashes"]
    command += ["--only-binary", ":all:", "--no-annotate", "--no-header", "--excludes", str(EXCLUDED)]
    command += ["--output-file", str(path), *more]
    command += ["--upgrade"] if upgrade else []
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, env={**uv_settings(), **os.environ})


def weigh(locked: Iterable[Block], python: str) -> Weight:
    """Download the wheels that `python` on Linux x86-64 takes. Fails if one does not exist."""
    chosen = "\n".join(unmarked(block) for block in locked if applies(block, python))
    tags = ["linux_x86_64", "manylinux1_x86_64", "manylinux2010_x86_64", "manylinux2014_x86_64"]
    tags += [f"manylinux_2_{minor}_x86_64" for minor in range(5, GLIBC + 1)]
    with tempfile.TemporaryDirectory() as folder:
        wanted = Path(folder) / "wanted.txt"
        wanted.write_text(chosen)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        command += ["--require-hashes", "--dest", folder, "--requirement", str(wanted), "--python-version", python]
        subprocess.run([*command, *(word for tag in tags for word in ("--platform", tag))], check=True)
        wheels = sorted(((path.stat().st_size, path) for path in Path(folder).glob("*.whl")), reverse=True)
        return Weight(
            python=python,
            wheels=len(wheels),
            download=sum(size for size, _ in wheels),
            unpacked=sum(info.file_size for _, path in wheels for info in zipfile.ZipFile(path).infolist()),
            largest=tuple((size, path.name) for size, path in wheels[:LARGEST]),
        )


def applies(block: Block, python: str) -> bool:
    """Whether CPython `python` on Linux x86-64 takes this package."""
    where = {"python_full_version": python, "python_version": ".".join(python.split(".")[:2])}
    where |= {"sys_platform": "linux", "platform_machine": "x86_64", "implementation_name": "cpython"}
    return not block.marker or Marker(block.marker).evaluate(where)


def unmarked(block: Block) -> str:
    """Return the lines of a package as they hold where its marker does."""
    first, _, hashes = block.text.partition("\n")
    return first.split(" ; ")[0].rstrip(" \\") + " \\\n" + hashes


def report(path: Path, weight: Weight) -> None:
    """Print what the lock weighs and what weighs most in it."""
    sys.stdout.write(f"{path.name}: {weight.line()[2:]}\n")
    for size, name in weight.largest:
        sys.stdout.write(f"  {size / 1e6:6.1f} MB  {name}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
