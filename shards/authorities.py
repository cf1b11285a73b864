"""Who vouches for servers of models that speak TLS."""

from __future__ import annotations

import ssl

import httpx

from tenants.errors import Misconfigured


def authorities() -> ssl.SSLContext:
    """Return what checks their certificates: the public authorities, or in their place those of the file that
    `SSL_CERT_FILE` names, or of the folder of `SSL_CERT_DIR`.

    For clients with `trust_env=False`, which keeps texts of tenants and keys from the proxies of the environment, and
    would leave these two variables aside as well.

    Raises:
        Misconfigured: the file cannot be read.
    """
    try:
        return httpx.create_ssl_context()
    except OSError as error:
        raise Misconfigured(f"The environment's SSL_CERT_FILE or SSL_CERT_DIR cannot be read: {error}.") from error
