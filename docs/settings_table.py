"""Writes the settings table of the README from the settings classes. Run it after a change of a setting."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from service.settings import Settings

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- settings: begin -->\n", "<!-- settings: end -->"


def rows() -> Iterator[str]:
    """Yield a line of the table for each setting."""
    for name, field in Settings.model_fields.items():
        nested = field.annotation
        if isinstance(nested, type) and issubclass(nested, BaseModel):
            for inner, inner_field in nested.model_fields.items():
                yield row(f"{name}_{inner}", inner_field)
        else:
            yield row(name, field)


def row(name: str, field: FieldInfo) -> str:
    """Return one line: name, default, meaning."""
    assert field.description, f"{name} has no description"
    default = field.get_default(call_default_factory=True)
    unset = default in ("", None, {}, []) or (isinstance(default, SecretStr) and not default.get_secret_value())
    shown = "" if unset else f"`{default}`"
    return f"| `TESSERA_{name.upper()}` | {shown} | {' '.join(field.description.split())} |\n"


def table() -> str:
    """Return the whole table."""
    return "| setting | default | meaning |\n|---|---|---|\n" + "".join(rows())


def with_table(text: str) -> str:
    """Return the README's text with the table as it should be."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return before + BEGIN + table() + END + after


if __name__ == "__main__":
    README.write_text(with_table(README.read_text(encoding="utf-8")), encoding="utf-8")
