"""Where Maven's registry is: a mirror of the user's, or else what Maven itself comes with."""

from __future__ import annotations

import zipfile
from pathlib import Path

from defusedxml import ElementTree

from tenants.errors import Misconfigured

MAVEN_SETTINGS = (Path("~/.m2/settings.xml"), Path("/etc/maven/settings.xml"))
SUPER_POM = "org/apache/maven/model/pom-4.0.0.xml"


def mirror(settings: Path) -> str:
    """Return the mirror of `central` or of everything that a settings.xml names, or ""."""
    for element in ElementTree.parse(settings).iter():
        if _name(element.tag) == "mirror":
            fields = {_name(child.tag): (child.text or "").strip() for child in element}
            if {"*", "central", "external:*"} & set(fields.get("mirrorOf", "").split(",")):
                return fields.get("url", "")
    return ""


def central(model_builder: Path) -> str:
    """Return the registry of the super POM, which is inside `maven-model-builder.jar`.

    Raises:
        Misconfigured: it names none.
    """
    with zipfile.ZipFile(model_builder) as opened:
        pom = ElementTree.fromstring(opened.read(SUPER_POM))
    for repository in (element for element in pom.iter() if _name(element.tag) == "repository"):
        fields = {_name(child.tag): (child.text or "").strip() for child in repository}
        if fields.get("id") == "central":
            return fields["url"]
    raise Misconfigured(f"{model_builder} names no registry")


def _name(tag: str) -> str:
    """Return a tag without its namespace."""
    return tag.rpartition("}")[2]
