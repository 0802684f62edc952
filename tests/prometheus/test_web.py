"""TLS, passwords and headers, by options and by --web.config.file."""

from __future__ import annotations

import asyncio
import base64
import shutil
import ssl
import sys
from pathlib import Path
from typing import Any

import pytest
from exporter import CERTIFICATE, CLIENT, Exporter, everything

from pychrony.prometheus import _web
from pychrony.prometheus._web import Web, load

# --- options -----------------------------------------------------------------


def tls(certificate: Path | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(CERTIFICATE)
    if certificate:
        context.load_cert_chain(certificate)
    return context


def test_tls_of_the_exporter() -> None:
    with (
        everything() as daemon,
        Exporter(
            *("--certfile", str(CERTIFICATE), "--address", daemon.address)
        ) as exporter,
    ):
        assert exporter.url == f"https://{exporter.place}/"
        with exporter.connect():
            # It does not shake hands, and holds up nobody.
            assert exporter.get("/", tls=tls())[0] == 200
            with pytest.raises(OSError):
                exporter.get("/")
        assert exporter.get("/", tls=tls())[0] == 200
        assert exporter.samples("/metrics", tls=tls())["chrony_up"] == 1
        assert exporter.stop() == (0, "")


def test_only_clients_with_a_certificate() -> None:
    with Exporter(
        *("--certfile", str(CERTIFICATE), "--keyfile", str(CERTIFICATE)),
        *("--client-cafile", str(CLIENT)),
    ) as exporter:
        assert exporter.get("/", tls=tls(CLIENT))[0] == 200
        for other in (tls(), tls(CERTIFICATE)):
            with pytest.raises(OSError):
                exporter.get("/", tls=other)


# --- the file ----------------------------------------------------------------

# From the tests of crypt_blowfish, and of bcrypt in Go; both with few rounds.
USERS = {
    "alice": ("U*U", "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"),
    "bob": ("allmine", "$2a$10$XajjQvNhvvRt5GSeFk1xFeyqRrsxkhBkUiQeg0dt.wU1qD4aFDcga"),
}


def config(folder: Path, text: str) -> str:
    path = folder / "web.yml"
    path.write_text(text)
    return str(path)


def basic(user: str, password: str) -> str:
    return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"


def test_users_and_their_passwords(tmp_path: Path) -> None:
    lines = "".join(f"  {user}: {known}\n" for user, (_, known) in USERS.items())
    name = config(tmp_path, f"basic_auth_users:\n{lines}")
    with Exporter("--web.config.file", name) as exporter:
        for path in ("/", "/metrics", "/-/healthy", "/nothing"):
            assert exporter.get(path) == (401, "Unauthorized\n")
        for user, (password, _) in USERS.items():
            for _ in range(2):
                headers = {"Authorization": basic(user, password)}
                assert exporter.get("/-/healthy", headers=headers)[0] == 200
        for wrong in (
            basic("alice", "u*u"),
            basic("alice", "allmine"),
            basic("carol", "U*U"),
            basic("alice", "U*U\0"),
            basic("", ""),
            "Basic !",
            "Basic YWxpY2U=",
            "Bearer " + basic("alice", "U*U").split()[1],
        ):
            headers = {"Authorization": wrong}
            assert exporter.get("/-/healthy", headers=headers)[0] == 401


def test_right_password_is_hashed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    password, known = USERS["alice"]
    web = Web(users={"alice": known})
    hashed: list[bytes] = []
    crypt = web._crypt

    def counting(given: bytes, setting: bytes) -> Any:
        hashed.append(given)
        return crypt(given, setting)

    monkeypatch.setattr(web, "_crypt", counting)

    async def ask() -> list[bool]:
        words = [password, password, "wrong", "wrong", password]
        return [await web.permits(basic("alice", one)) for one in words]

    assert asyncio.run(ask()) == [True, True, False, False, True]
    assert hashed == [b"U*U", b"wrong", b"wrong"]
    web.close()


def test_tls_file(tmp_path: Path) -> None:
    shutil.copy(CERTIFICATE, tmp_path / "here.pem")
    name = config(
        tmp_path,
        f"""
tls_server_config:
  cert_file: here.pem
  key_file: here.pem
  client_auth_type: RequireAndVerifyClientCert
  client_ca_file: {CLIENT}
  min_version: TLS13
  prefer_server_cipher_suites: true
http_server_config:
  http2: false
  headers:
    X-Frame-Options: deny
""",
    )
    with Exporter("--web.config.file", name) as exporter:
        assert "http2" in exporter.said
        assert exporter.url.startswith("https://")
        assert exporter.get("/", tls=tls(CLIENT))[0] == 200
        with pytest.raises(OSError):
            exporter.get("/", tls=tls())
        old = tls(CLIENT)
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises(OSError):
            exporter.get("/", tls=old)


def test_headers_and_an_empty_file(tmp_path: Path) -> None:
    headers = "http_server_config: {headers: {X-Frame-Options: deny}}"
    web = load(config(tmp_path, headers))
    assert (web.headers, web.context) == ({"X-Frame-Options": "deny"}, None)
    web = load(config(tmp_path, ""))
    assert (web.headers, web.context) == ({}, None)
    assert asyncio.run(web.permits(""))
    web.close()


TLS = f"tls_server_config: {{cert_file: {CERTIFICATE}, key_file: {CERTIFICATE}, "


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "cannot read"),
        ("- a", "the file is not a mapping"),
        ("rate_limit: {interval: 1s}", "'rate_limit' in the file cannot be done here"),
        ("tls_server_config: {cert_file: a}", "needs cert_file and key_file"),
        ("tls_server_config: {cert_file: a, key_file: b}", "certificate .* not usable"),
        (TLS + "client_auth_type: RequestClientCert}", "cannot be done here, only"),
        (TLS + "client_auth_type: RequireAndVerifyClientCert}", "client_ca_file needs"),
        (TLS + f"client_ca_file: {CLIENT}}}", "client_ca_file needs"),
        (TLS + "min_version: SSL3}", "min_version 'SSL3' is none of"),
        (TLS + "cipher_suites: [a]}", "'cipher_suites' in tls_server_config cannot"),
        (TLS + "min_version: 13}", "min_version in tls_server_config is not a text"),
        ("basic_auth_users: {a: secret}", "'a' is not hashed with bcrypt"),
        ("basic_auth_users: {a: $1$abcd}", "'a' is not hashed with bcrypt"),
        ("basic_auth_users: {a: 5}", "a in basic_auth_users is not a text"),
        ("http_server_config: {http3: true}", "'http3' in http_server_config"),
    ],
)
def test_what_the_file_cannot_say(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(config(tmp_path, text))


def test_versions_and_optional_certificates(tmp_path: Path) -> None:
    text = (
        f"client_ca_file: {CLIENT}, client_auth_type: VerifyClientCertIfGiven, "
        "min_version: TLS12, max_version: TLS12}"
    )
    context = load(config(tmp_path, TLS + text)).context
    assert context is not None
    assert context.verify_mode is ssl.CERT_OPTIONAL
    assert context.minimum_version is context.maximum_version is ssl.TLSVersion.TLSv1_2


def test_no_libcrypt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_web, "_CRYPT", ("libnowhere.so.1",))
    with pytest.raises(ValueError, match="needs libcrypt"):
        Web(users={"alice": USERS["alice"][1]})


def test_no_yaml(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(ValueError, match=r"needs PyYAML.*pychrony\[prometheus\]"):
        load(config(tmp_path, ""))
