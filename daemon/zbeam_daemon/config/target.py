"""Where an upstream is and how it is reached: base URL, proxy, certificates, model names.

All of it is worked out once, when the configuration is loaded, so that no request depends on what
the environment says at that moment.
"""

import base64
import ipaddress
import os
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from zbeam_shared.files import UnreadableError, read_small
from zbeam_shared.models import RETIRED

DEEPSEEK_HOST = "api.deepseek.com"
DEEPSEEK_MAX_TOKENS = 393_216
"""Largest max_tokens that the API takes (deepseek-api.md, "Chat request")."""
_SERVED = "deepseek-flash, deepseek-v4-pro"
_CA_VARIABLES = ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")
_HIDEABLE = 4
MAX_CA_FILE = 8 * 1024 * 1024
"""Largest CA file that is read, in bytes."""


class TargetError(ValueError):
    """An address, a proxy or a CA file that cannot be used; the text holds no password."""


def check_model(base_url: str, model: str) -> str | None:
    """Say why a model name cannot work at an address; None when it may.

    Only names that DeepSeek itself retired are refused: any other name is for the API to judge.
    """
    if model in RETIRED and is_deepseek(base_url):
        return f"{model} was retired by DeepSeek: use one of {_SERVED}"
    return None


def is_deepseek(base_url: str) -> bool:
    """Tell whether an address is DeepSeek's own API."""
    try:
        return urlsplit(base_url).hostname == DEEPSEEK_HOST
    except ValueError:
        return False


def has_beta(base_url: str) -> bool:
    """Tell whether features in beta have a path of their own below this address.

    They have at DeepSeek's own (unless the address is that path already) and at a stand-in for
    it on this machine; other APIs of the same shape take them at their usual path or not at all.
    """
    url = urlsplit(base_url)
    return not url.path and (is_deepseek(base_url) or is_loopback(url.hostname or ""))


def normal_base_url(text: str) -> str:
    """Return a base URL without a slash at its end, and for DeepSeek without ``/v1``.

    DeepSeek serves the same API with and without ``/v1``; taking it off means that no caller can
    end up at ``/v1/v1``. Raises TargetError.
    """
    url = _split(text)
    host = url.hostname or ""
    path = url.path.rstrip("/")
    if url.username is not None or url.password is not None:
        raise TargetError("must not hold a user name or a password")
    if "?" in text or "#" in text:
        raise TargetError("must not hold a query or a fragment (? or #)")
    if path.endswith(("/chat/completions", "/completions")):
        raise TargetError("is the base only: leave /chat/completions out")
    if url.scheme == "http" and not is_loopback(host):
        raise TargetError(
            f"http:// would send the API key to {host} in plain text: use https:// "
            "(http:// is for this machine only, such as http://127.0.0.1:8080)"
        )
    if host == DEEPSEEK_HOST:
        path = re.sub(r"(/v1)+$", "", path)
        if path not in ("", "/beta"):
            raise TargetError(f"{DEEPSEEK_HOST} has its chat API at / (or /v1) and at /beta")
    elif re.search(r"/v1/v1$", path):
        raise TargetError("ends in /v1/v1: write /v1 once")
    return urlunsplit((url.scheme, url.netloc.lower(), path, "", ""))


def _split(text: str) -> SplitResult:
    """Split an http(s) URL with a host; the caller's text is not repeated in the error."""
    try:
        url = urlsplit(text)
        host, port = url.hostname, url.port
    except ValueError:
        raise TargetError("is not a URL: its host or its port is wrong") from None
    if url.scheme not in ("http", "https"):
        raise TargetError("must begin with http:// or https://")
    if not host or not re.fullmatch(r"[A-Za-z0-9._:%-]+", host) or port == 0:
        raise TargetError("must hold a host name or an IP address in plain ASCII")
    if not text.isascii() or re.search(r"[\s\\]", text):
        raise TargetError("must not hold spaces, backslashes or non-ASCII characters")
    return url


def is_loopback(host: str) -> bool:
    """Tell whether a host is this machine, by its name or its address alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def resolve_proxy(
    configured: str | None, base_url: str, environ: Mapping[str, str]
) -> tuple[str | None, str]:
    """Return the proxy for an address (None: connect directly) and where it was found.

    ``configured`` is the key's value or None. From the environment a proxy is never taken for this
    machine itself: an http:// request through it would carry the API key in plain text.
    Raises TargetError.
    """
    url = urlsplit(base_url)
    host = url.hostname or ""
    if configured == "off":
        return None, "file"
    if configured is not None:
        proxy = _split(configured)
        if url.scheme == "http" and not is_loopback(proxy.hostname or ""):
            raise TargetError(
                "an http:// base_url through a proxy would send the API key in plain text: "
                'set proxy = "off"'
            )
        return configured, "file"
    if is_loopback(host):
        return None, "default"
    # The lower-case name wins, as in curl and urllib.
    found = {
        name.lower(): (name, value)
        for name, value in sorted(environ.items())
        if name.lower().endswith("_proxy") and value.strip()
    }
    _, bypass = found.get("no_proxy", ("", ""))
    if bypass and _bypassed(url.netloc.rpartition("@")[2], bypass):
        return None, "environment NO_PROXY"
    for wanted in (f"{url.scheme}_proxy", "all_proxy"):
        if wanted in found:
            name, value = found[wanted]
            value = value.strip() if "://" in value else f"http://{value.strip()}"
            try:
                _split(value)
            except TargetError as error:
                raise TargetError(
                    f'the environment variable {name} {error}; or set proxy here, "off" for none'
                ) from None
            return value, f"environment {name}"
    return None, "default"


def _bypassed(netloc: str, bypass: str) -> bool:
    import urllib.request

    # typeshed leaves this function out; the alternative, requests' own, reads os.environ.
    bypassed = urllib.request.proxy_bypass_environment  # type: ignore[attr-defined]
    return bool(bypassed(netloc, {"no": bypass}))


def masked_url(url: str) -> str:
    """Return a URL with its user name and password hidden."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    netloc = f"****@{host}" if "@" in parts.netloc else host
    return urlunsplit(parts._replace(netloc=netloc))


def proxy_secrets(url: str | None) -> tuple[str, ...]:
    """Return what of a proxy's URL must not be shown, in each form in which it is sent or written.

    A password of less than four characters cannot be hidden in a text, and protects nothing.
    """
    parts = urlsplit(url or "")
    if not parts.password:
        return ()
    user, password = unquote(parts.username or ""), unquote(parts.password)
    sent = base64.b64encode(f"{user}:{password}".encode()).decode()
    return tuple(text for text in (sent, parts.password, password) if len(text) >= _HIDEABLE)


def resolve_ca(configured: Path | None, environ: Mapping[str, str]) -> tuple[Path, str, str]:
    """Return the CA file, where it was named, and its text, for ``cadata`` of an SSL context.

    It is read this once: what is trusted is what was checked, whatever becomes of the file.
    Raises TargetError when it is missing or holds no PEM certificate.
    """
    if configured is not None:
        return configured, "file", _read_ca(configured, str(configured))
    for variable in _CA_VARIABLES:
        if environ.get(variable):
            path = Path(environ[variable]).absolute()
            named = f"{path}, named by the environment variable {variable},"
            return path, f"environment {variable}", _read_ca(path, named)
    import certifi

    path = Path(certifi.where())
    return path, "default", _plain(path.read_bytes())


def _read_ca(path: Path, named: str) -> str:
    import ssl

    try:
        data, _ = read_small(path, MAX_CA_FILE)
    except UnreadableError as error:
        hint = ": name one PEM file with certificates" if os.path.isdir(path) else ""  # noqa: PTH112
        raise TargetError(f"{named} {error}{hint}") from None
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=_plain(data))
    except (ssl.SSLError, ValueError):
        raise TargetError(f"{named} holds no PEM certificates that can be read") from None
    return _plain(data)


def _plain(pem: bytes) -> str:
    # In comments, names of authorities are in any script; in a certificate it spoils it still.
    return pem.decode("ascii", "backslashreplace")
