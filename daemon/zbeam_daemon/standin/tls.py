"""TLS for the stand-in: a certificate of its own, or the caller's, and the alerts it can send."""

import os
import ssl
import tempfile
from pathlib import Path

# RFC 8446, 6.2; the alert record is sent in the clear, before any key exists.
ALERTS = {
    "handshake_failure": 40,
    "bad_certificate": 42,
    "protocol_version": 70,
    "internal_error": 80,
    "unrecognized_name": 112,
}


def alert(name: str) -> bytes:
    """A fatal alert record."""
    return b"\x15\x03\x03\x00\x02\x02" + bytes([ALERTS[name]])


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


def given_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """A context with the caller's certificate chain and key.

    Raises:
        OSError: a file cannot be read (ssl.SSLError, one of these, when it cannot be used).
    """
    context = _context()
    context.load_cert_chain(certificate, key)
    return context


def made_context(host: str) -> tuple[ssl.SSLContext, bytes]:
    """A context with a fresh certificate for `host`, and the PEM of the CA that signed it.

    Raises:
        ImportError: trustme, the optional dependency that makes certificates, is missing.
    """
    import trustme

    authority = trustme.CA(organization_name="zbeamd standin")
    names = dict.fromkeys((host, "localhost", "127.0.0.1", "::1"))
    context = _context()
    authority.issue_cert(*names).configure_cert(context)
    pem: bytes = authority.cert_pem.bytes()
    return context, pem


def write_atomically(path: Path, data: bytes) -> None:
    """Write `path` so that a reader sees the whole file or none: it may be waiting for it."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
