"""What the demo prints around the answers: who says what, and at the end how to go on."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from rich.text import Text

from service.cli.terminal import line, out, print_hanging
from service.local.settings import ROOT

NAME_COLUMNS = 12


def show_heading(sentence: str) -> None:
    """Print what comes next."""
    out.print()
    out.print(Text(sentence, "dim"))


def show_speech(name: str, sentence: str) -> None:
    """Print a tenant's name and, beside it, a sentence that wraps there."""
    print_hanging(Text(f"{name:<{NAME_COLUMNS}}", "cyan"), Text(line(sentence), "bold"))


def show_hints(url: str, keys: Mapping[str, str], kept: Path, question: str) -> None:
    """Print address and keys, and commands to copy: for them no line is wrapped."""
    first = next(iter(keys))
    facts = [("URL", url), ("API docs", f"{url}/docs")]
    facts += [*keys.items(), ("keys kept", _shown(kept)), ("admin key", f'eval "$({program()} env)"')]
    out.print()
    for name, value in facts:
        out.print(Text.assemble((f"{name:<{NAME_COLUMNS}}", "dim"), value), soft_wrap=True)
    out.print()
    out.print(Text(f"To go on as {first}:", "dim"))
    for command in commands(url, keys[first], question):
        out.print(Text(command), soft_wrap=True)


def commands(url: str, key: str, question: str) -> list[str]:
    """Return commands for a shell: ask and upload with curl, ask with this program."""
    readme = next((path for path in (ROOT / "README.md", ROOT / "examples" / "README.md") if path.exists()), None)
    return [
        f"export TESSERA_URL={url}",
        f"export TESSERA_KEY={key}",
        'curl -N $TESSERA_URL/v1/chat -H "Authorization: Bearer $TESSERA_KEY" \\\n'
        '  -H "Content-Type: application/json" \\\n'
        f'  -d \'{{"message": "{question}"}}\'',
        'curl $TESSERA_URL/v1/documents -H "Authorization: Bearer $TESSERA_KEY" \\\n'
        f"  -F file=@{_shown(readme) if readme else 'README.md'} -F external_id=readme",
        f'{program()} ask "{question}"',
    ]


def program() -> str:
    """Return how to call this program from here."""
    own = Path(sys.prefix) / "bin" / "tessera"
    return "tessera" if shutil.which("tessera") or not own.exists() else _shown(own)


def _shown(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
