"""The demo's companies: what `examples/<slug>/manifest.json` says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tenants.errors import Misconfigured


class ManifestDocument(BaseModel):
    """One document of a company."""

    model_config = ConfigDict(frozen=True)

    file: str
    title: str
    external_id: str
    metadata: dict[str, Any]


class Question(BaseModel):
    """What a company may ask about its own documents: the strings of a right answer, and where they stand."""

    model_config = ConfigDict(frozen=True)

    question: str
    answer_contains: tuple[str, ...]
    document: str


class ForeignQuestion(BaseModel):
    """What only the other company's documents answer, and the facts that would leak."""

    model_config = ConfigDict(frozen=True)

    question: str
    must_not_contain: tuple[str, ...]


class Manifest(BaseModel):
    """One company."""

    model_config = ConfigDict(frozen=True)

    slug: str
    name: str
    documents: tuple[ManifestDocument, ...] = Field(min_length=1)
    questions: tuple[Question, ...] = Field(min_length=1)
    foreign_questions: tuple[ForeignQuestion, ...] = Field(min_length=1)


def load_manifests(examples: Path) -> dict[Path, Manifest]:
    """Return the companies by their folders.

    Raises:
        Misconfigured: there are none, or a manifest is damaged.
    """
    found = {}
    for path in sorted(examples.glob("*/manifest.json")):
        try:
            found[path.parent] = Manifest.model_validate_json(path.read_text(encoding="utf-8"))
        except (ValidationError, OSError) as error:
            raise Misconfigured(f"{path} cannot be used: {error}") from error
    if not found:
        raise Misconfigured(f"{examples} holds no examples; name their folder with --examples.", code="no_examples")
    return found
