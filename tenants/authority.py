"""Files of certificate authorities that settings name."""

from __future__ import annotations

import ssl
from pathlib import Path

from tenants.errors import Misconfigured


def check_authority(setting: str, path: Path) -> None:
    """Raise `Misconfigured` for a file that certificates cannot be checked with: it is not there, is a folder, may not
    be read, or holds no certificate (PEM). `setting` names it."""
    try:
        ssl.create_default_context(cafile=path)
    except ssl.SSLError as error:
        raise Misconfigured(f"{setting} names {path}, which holds no certificate (PEM).") from error
    except OSError as error:
        raise Misconfigured(f"{setting} names {path}: {error.strerror or error}.") from error
