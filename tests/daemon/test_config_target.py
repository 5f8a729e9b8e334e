"""Where an upstream is reached: addresses, proxies, CA files, retired models."""

import os
from pathlib import Path

import pytest
import trustme

from support.configs import loaded, problems
from zbeam_daemon.config.target import check_model, normal_base_url
from zbeam_daemon.session import Transport

UPSTREAM = "upstream.deepseek"


@pytest.mark.parametrize(
    ("written", "used"),
    [
        ("https://api.deepseek.com", "https://api.deepseek.com"),
        ("https://api.deepseek.com/", "https://api.deepseek.com"),
        ("https://API.DeepSeek.com/v1", "https://api.deepseek.com"),
        ("https://api.deepseek.com/v1/", "https://api.deepseek.com"),
        ("https://api.deepseek.com/v1/v1", "https://api.deepseek.com"),
        ("https://api.deepseek.com/beta", "https://api.deepseek.com/beta"),
        ("https://openrouter.example/api/v1/", "https://openrouter.example/api/v1"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://localhost:1/v1", "http://localhost:1/v1"),
        ("http://[::1]:8080", "http://[::1]:8080"),
    ],
)
def test_address_is_brought_to_one_form(written: str, used: str) -> None:
    assert normal_base_url(written) == used


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("api.deepseek.com", "must begin with http"),
        ("ftp://api.deepseek.com", "must begin with http"),
        ("https://", "must hold a host"),
        ("https://host/a b", "spaces"),
        ("https://host:99999", "not a URL"),
        ("https://[::1", "not a URL"),
        ("https://höst.example", "ASCII"),
        ("https://me:pw@host", "user name or a password"),
        ("https://host/?", "query"),
        ("https://host#x", "fragment"),
        ("https://api.deepseek.com/chat/completions", "leave /chat/completions out"),
        ("https://api.deepseek.com/anthropic", "has its chat API at"),
        ("https://other.example/v1/v1", "write /v1 once"),
        ("http://api.deepseek.com", "plain text"),
        ("http://127.0.0.1.evil.example", "plain text"),
        ("http://10.0.0.1", "plain text"),
    ],
)
def test_address_that_cannot_be_meant_is_refused(tmp_path: Path, written: str, said: str) -> None:
    found = problems(tmp_path, base_url=f'base_url = "{written}"')
    assert said in found[f"{UPSTREAM}.base_url"]


def test_retired_models_are_refused_by_deepseek_only(tmp_path: Path) -> None:
    found = problems(tmp_path, model='model = "deepseek-chat"')
    assert "deepseek-flash, deepseek-v4-pro" in found[f"{UPSTREAM}.generation.model"]
    assert check_model("https://api.deepseek.com/beta", "deepseek-reasoner") is not None
    assert check_model("https://other.example/v1", "deepseek-chat") is None
    assert check_model("https://api.deepseek.com", "deepseek-v9") is None


def test_max_tokens_of_deepseek_does_not_bind_other_apis(tmp_path: Path) -> None:
    config = loaded(
        tmp_path, base_url='base_url = "https://other.example"', max_tokens="max_tokens = 500000"
    )
    assert config.upstreams["deepseek"].generation.max_tokens == 500_000


class TestProxy:
    def proxy(
        self, tmp_path: Path, environ: dict[str, str], line: str = "", **lines: str
    ) -> str | None:
        key = f'api_key_env = "DEEPSEEK_API_KEY"\n{line}'
        return loaded(tmp_path, "", environ, api_key_env=key, **lines).upstreams["deepseek"].proxy

    def test_environment(self, tmp_path: Path) -> None:
        assert self.proxy(tmp_path, {}) is None
        assert self.proxy(tmp_path, {"HTTPS_PROXY": "http://p:1"}) == "http://p:1"
        assert self.proxy(tmp_path, {"HTTP_PROXY": "http://p:1"}) is None
        assert self.proxy(tmp_path, {"ALL_PROXY": "p:1"}) == "http://p:1"
        both = {"HTTPS_PROXY": "http://upper:1", "https_proxy": "http://lower:1"}
        assert self.proxy(tmp_path, both) == "http://lower:1"

    @pytest.mark.parametrize(
        "exempt", ["*", "deepseek.com", ".deepseek.com", "x, api.deepseek.com"]
    )
    def test_no_proxy(self, tmp_path: Path, exempt: str) -> None:
        environ = {"HTTPS_PROXY": "http://p:1", "NO_PROXY": exempt}
        assert self.proxy(tmp_path, environ) is None

    def test_file_wins(self, tmp_path: Path) -> None:
        environ = {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "*"}
        assert self.proxy(tmp_path, environ, 'proxy = "off"') is None
        assert self.proxy(tmp_path, environ, 'proxy = "http://q:2"') == "http://q:2"

    def test_key_for_this_machine_never_travels_through_a_proxy(self, tmp_path: Path) -> None:
        local = 'base_url = "http://127.0.0.1:8080"'
        assert self.proxy(tmp_path, {"HTTP_PROXY": "http://p:1"}, base_url=local) is None
        key = 'api_key_env = "DEEPSEEK_API_KEY"\nproxy = "http://p:1"'
        assert (
            "plain text" in problems(tmp_path, base_url=local, api_key_env=key)[f"{UPSTREAM}.proxy"]
        )

    def test_kind_of_proxy_that_is_not_spoken(self, tmp_path: Path) -> None:
        found = problems(tmp_path, "", {"ALL_PROXY": "socks5://me:hunter2@p:1"})
        assert "ALL_PROXY must begin with http" in found[f"{UPSTREAM}.proxy"]
        assert "hunter2" not in str(found)


class TestCaFile:
    @pytest.fixture
    def pem(self, tmp_path: Path) -> Path:
        path = tmp_path / "ca.pem"
        trustme.CA().cert_pem.write_to_path(str(path))
        return path

    def test_named_in_the_file_or_the_environment(self, tmp_path: Path, pem: Path) -> None:
        line = 'api_key_env = "DEEPSEEK_API_KEY"\nca_file = "ca.pem"'
        other = {"REQUESTS_CA_BUNDLE": "/gone", "SSL_CERT_FILE": "/gone"}
        assert loaded(tmp_path, "", other, api_key_env=line).upstreams["deepseek"].ca_file == pem
        for variable in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"):
            config = loaded(tmp_path, "", {variable: str(pem)})
            assert config.upstreams["deepseek"].ca_file == pem
            assert config.origins["upstream", "deepseek", "ca_file"] == f"environment {variable}"

    def test_default_is_a_bundle_that_exists(self, tmp_path: Path) -> None:
        assert loaded(tmp_path).upstreams["deepseek"].ca_file.is_file()

    def test_what_is_trusted_is_what_was_checked(self, tmp_path: Path, pem: Path) -> None:
        """OpenSSL reads more of a file than of a text: what passed here failed at the start."""
        crl = "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"
        pem.write_text(f"# Főtanúsítvány\n{pem.read_text()}{crl}")
        line = 'api_key_env = "DEEPSEEK_API_KEY"\nca_file = "ca.pem"'
        settings = loaded(tmp_path, api_key_env=line).upstreams["deepseek"]
        pem.unlink()
        context = Transport.of(settings).context
        assert context is not None
        (trusted,) = context.get_ca_certs()
        assert "trustme" in str(trusted["subject"])

    @pytest.mark.parametrize("content", [None, "", "-----BEGIN CERTIFICATE-----\nxx\n", "ü"])
    def test_useless_file_is_refused_at_the_start_not_at_the_first_request(
        self, tmp_path: Path, content: str | None
    ) -> None:
        if content is not None:
            (tmp_path / "ca.pem").write_text(content)
        line = 'api_key_env = "DEEPSEEK_API_KEY"\nca_file = "ca.pem"'
        assert "ca.pem" in problems(tmp_path, api_key_env=line)[f"{UPSTREAM}.ca_file"]

    def test_folder_in_the_environment_is_explained(self, tmp_path: Path) -> None:
        found = problems(tmp_path, "", {"REQUESTS_CA_BUNDLE": str(tmp_path)})
        message = found[f"{UPSTREAM}.ca_file"]
        assert "REQUESTS_CA_BUNDLE" in message
        assert "name one PEM file" in message


def test_environment_of_the_process_plays_no_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`check` of another user's setup, and tests, hand in an environment of their own."""
    monkeypatch.setitem(os.environ, "HTTPS_PROXY", "http://p:1")
    monkeypatch.setitem(os.environ, "SSL_CERT_FILE", "/gone")
    assert loaded(tmp_path).upstreams["deepseek"].proxy is None
