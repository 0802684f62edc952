"""TLS, passwords and headers: the options, and the file of --web.config.file.

The file is the web configuration file of the Prometheus exporters ("exporter toolkit").
Settings that are not supported are rejected and not ignored, as they may be there for
safety.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

_log = logging.getLogger("pychrony.prometheus")

_VERSIONS = {
    "TLS10": ssl.TLSVersion.TLSv1,
    "TLS11": ssl.TLSVersion.TLSv1_1,
    "TLS12": ssl.TLSVersion.TLSv1_2,
    "TLS13": ssl.TLSVersion.TLSv1_3,
}

_CLIENT_AUTH = {
    "NoClientCert": ssl.CERT_NONE,
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}

# The library with bcrypt: with glibc a separate one, with musl the libc.
_CRYPT = ("libcrypt.so.1", "libcrypt.so.2", None)


class Web:
    """How the exporter serves.

    Attributes:
        context: for TLS; ``None`` for no TLS.
        headers: of each response.
    """

    def __init__(
        self,
        context: ssl.SSLContext | None = None,
        headers: Mapping[str, str] | None = None,
        users: Mapping[str, str] | None = None,
    ) -> None:
        self.context = context
        self.headers = dict(headers or {})
        self._users = {
            user.encode(): one.encode() for user, one in (users or {}).items()
        }
        self._key = os.urandom(32)
        self._right: dict[bytes, bytes] = {}
        if self._users:
            self._crypt = _crypt()
            # That import takes milliseconds, and few have users.
            from concurrent.futures import ThreadPoolExecutor

            # bcrypt takes a tenth of a second: one at a time, in a thread.
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="bcrypt")
            for user, known in self._users.items():
                if len(self._crypt(b"", known)) != len(known) or known[:2] != b"$2":
                    raise ValueError(
                        f"basic_auth_users: the password of {user.decode()!r} is not "
                        "hashed with bcrypt, or the libcrypt here does not know that"
                    )

    def close(self) -> None:
        """End the thread that hashes passwords."""
        if self._users:
            self._thread.shutdown()

    async def permits(self, authorization: str) -> bool:
        """Whether this header has a user and the right password."""
        if not self._users:
            return True
        # These take milliseconds, and few have users.
        import base64
        import binascii
        import hmac

        scheme, _, text = authorization.partition(" ")
        try:
            given = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            return False
        user, colon, password = given.partition(b":")
        if scheme.lower() != "basic" or not colon or b"\0" in password:
            return False
        # A password that was right once is not hashed again.
        seen = hmac.digest(self._key, given, "sha256")
        if hmac.compare_digest(self._right.get(user, b""), seen):
            return True
        # An unknown user must take as long as a wrong password.
        known = self._users.get(user) or next(iter(self._users.values()))
        loop = asyncio.get_running_loop()
        hashed = await loop.run_in_executor(self._thread, self._crypt, password, known)
        if user not in self._users or not hmac.compare_digest(hashed, known):
            return False
        self._right[user] = seen
        return True


def _crypt() -> Any:
    from cffi import FFI

    ffi: Any = FFI()
    ffi.cdef("char *crypt(const char *, const char *);")
    for name in _CRYPT:
        try:
            return partial(_hashed, ffi, ffi.dlopen(name).crypt)
        except (OSError, AttributeError):
            continue
    raise ValueError("basic_auth_users needs libcrypt, which is not on this system")


def _hashed(ffi: Any, crypt: Any, password: bytes, setting: bytes) -> bytes:
    found = crypt(password, setting)
    hashed: bytes = ffi.string(found) if found else b""
    return hashed


def tls_context(
    certificate: str,
    key: str | None,
    authorities: str | None,
    verify: ssl.VerifyMode = ssl.CERT_REQUIRED,
) -> ssl.SSLContext:
    """Return the context for TLS; with authorities, clients need a certificate.

    Raises:
        ValueError: a file is not usable.
    """
    try:
        context = ssl.create_default_context(
            ssl.Purpose.CLIENT_AUTH, cafile=authorities
        )
    except OSError as error:
        raise ValueError(
            f"the authorities in {authorities} are not usable: {error}"
        ) from error
    if authorities:
        context.verify_mode = verify
    try:
        # Without this, it would ask for a password at the terminal.
        context.load_cert_chain(certificate, key, password="")
    except OSError as error:
        raise ValueError(
            f"the certificate {certificate} or its key is not usable: {error}"
        ) from error
    return context


def load(name: str) -> Web:
    """Return the settings of a web configuration file.

    Raises:
        ValueError: it is not usable, or has settings that are not supported.
    """
    try:
        import yaml
    except ImportError as error:
        raise ValueError(
            "--web.config.file needs PyYAML. Install it with: "
            f"pip install 'pychrony[prometheus]' ({error})"
        ) from error
    try:
        with open(name, "rb") as file:
            found: Any = yaml.safe_load(file) or {}
    except (OSError, yaml.YAMLError) as error:
        raise ValueError(f"cannot read {name}: {error}") from error
    try:
        whole = _Section(found, "the file")
        context = _tls(whole.section("tls_server_config"), os.path.dirname(name))
        users = whole.section("basic_auth_users").texts()
        server = whole.section("http_server_config")
        headers = server.section("headers").texts()
        if server.take("http2") is not None:
            _log.warning("http2 in %s has no meaning here: HTTP/1.1 is served", name)
        server.end()
        whole.end()
        return Web(context, headers, users)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _tls(section: _Section, folder: str) -> ssl.SSLContext | None:
    if not section:
        return None

    def path(key: str) -> str | None:
        given = section.text(key)
        return os.path.join(folder, given) if given else None

    certificate, key = path("cert_file"), path("key_file")
    authorities = path("client_ca_file")
    if not (certificate and key):
        raise ValueError("tls_server_config needs cert_file and key_file")
    kind = section.text("client_auth_type") or "NoClientCert"
    verify = _CLIENT_AUTH.get(kind)
    if verify is None:
        raise ValueError(
            f"client_auth_type {kind!r} cannot be done here, only "
            f"{', '.join(_CLIENT_AUTH)}"
        )
    if bool(authorities) != (verify is not ssl.CERT_NONE):
        raise ValueError(
            "client_ca_file needs a client_auth_type that verifies, and the other "
            "way round"
        )
    context = tls_context(certificate, key, authorities, verify)
    for name in ("min_version", "max_version"):
        version = section.text(name)
        if version:
            if version not in _VERSIONS:
                raise ValueError(
                    f"{name} {version!r} is none of {', '.join(_VERSIONS)}"
                )
            setattr(context, f"{name[:3]}imum_version", _VERSIONS[version])
    section.take("prefer_server_cipher_suites")  # as OpenSSL does
    section.end()
    return context


class _Section:
    """A mapping in the file; all of its keys must be known."""

    def __init__(self, found: dict[Any, Any], name: str) -> None:
        if type(found) is not dict:
            raise ValueError(f"{name} is not a mapping")
        self._left = dict(found)
        self._name = name

    def __bool__(self) -> bool:
        return bool(self._left)

    def take(self, key: str) -> Any:
        return self._left.pop(key, None)

    def text(self, key: str) -> str:
        value = self.take(key)
        if not isinstance(value, str | None):
            raise ValueError(f"{key} in {self._name} is not a text")
        return value or ""

    def texts(self) -> dict[str, str]:
        return {str(key): self.text(key) for key in list(self._left)}

    def section(self, key: str) -> _Section:
        value = self.take(key)
        return _Section({} if value is None else value, key)

    def end(self) -> None:
        """Reject unknown keys: they may be there for safety."""
        if self._left:
            raise ValueError(
                f"{', '.join(map(repr, self._left))} in {self._name} cannot be done "
                "here"
            )
