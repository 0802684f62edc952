"""Stand-ins on loopback for two package indexes and GitHub's identity provider.

The indexes are pypiserver. twine, unchanged, reaches them under their real names
through a proxy: it asks the proxy for a connection to the address that it knows,
and the proxy answers itself, with a certificate of an authority of its own. Other
hosts the proxy refuses, so nothing gets out. What is not real: the index does not
check the signature of an identity, and pypiserver takes attestations unread.
"""

from __future__ import annotations

import base64
import enum
import io
import json
import os
import secrets
import socket
import ssl
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from socketserver import ThreadingMixIn
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, urlsplit
from wsgiref.simple_server import ServerHandler, WSGIRequestHandler, WSGIServer

import pypiserver
import trustme
from twine.utils import get_config

from .publishing import INDEXES, WORKFLOW

REPOSITORY = "somebody/pychrony"
_CONNECTION = "release.connection"
Environ = dict[str, Any]
StartResponse = Callable[[str, list[tuple[str, str]]], Any]


class Fault(enum.Enum):
    """What goes wrong with one upload."""

    CUT_SENDING = enum.auto()
    CUT_AFTER_STORING = enum.auto()
    ERROR_AFTER_STORING = enum.auto()


class Index:
    """One package index, with one trusted publisher: the environment of its name."""

    def __init__(self, name: str, directory: Path) -> None:
        directory.mkdir()
        self.name = name
        self.directory = directory
        self.down = 0
        self.faults: list[Fault] = []
        self.uploads = 0
        self._token = secrets.token_hex()
        self._server = pypiserver.app(
            roots=[directory],
            authenticate=[],
            password_file=".",
            disable_fallback=True,
            hash_algo="sha256",
            backend_arg="simple-dir",
        )

    def __call__(self, environ: Environ, start: StartResponse) -> Iterable[bytes]:
        body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"] or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        if self.down:
            self.down -= 1
            return answer(start, "503 Service Unavailable", {})
        match environ["PATH_INFO"]:
            case "/_/oidc/audience":
                return answer(start, "200 OK", {"audience": self.name})
            case "/_/oidc/mint-token":
                return self._mint(json.loads(body)["token"], start)
            case "/legacy/":
                return self._upload(environ, start)
            case _:
                served: Iterable[bytes] = self._server(environ, start)
                return served

    def _mint(self, identity: str, start: StartResponse) -> Iterable[bytes]:
        claims = json.loads(base64.urlsafe_b64decode(identity.split(".")[1]))
        wanted = {
            "aud": self.name,
            "environment": self.name,
            "repository": REPOSITORY,
            "workflow": WORKFLOW,
        }
        if claims == wanted:
            return answer(start, "200 OK", {"success": True, "token": self._token})
        # In the words of the real ones.
        problem = {
            "code": "invalid-publisher",
            "description": "valid token, but no corresponding publisher "
            "(Publisher with matching claims was not found)",
        }
        refusal = {"message": "Token request failed", "errors": [problem]}
        return answer(start, "422 Unprocessable Content", refusal)

    def _upload(self, environ: Environ, start: StartResponse) -> Iterable[bytes]:
        self.uploads += 1
        credentials = base64.b64encode(f"__token__:{self._token}".encode()).decode()
        if environ.get("HTTP_AUTHORIZATION") != f"Basic {credentials}":
            return answer(start, "403 Forbidden", {})
        fault = self.faults.pop(0) if self.faults else None
        if fault is Fault.CUT_SENDING:
            return cut(environ)
        environ["PATH_INFO"] = "/"
        # pypiserver has its own idea of who may upload.
        del environ["HTTP_AUTHORIZATION"]
        stored: Iterable[bytes] = self._server(environ, start)
        if fault is Fault.CUT_AFTER_STORING:
            return cut(environ)
        if fault is Fault.ERROR_AFTER_STORING:
            return answer(start, "502 Bad Gateway", {})
        return stored


class StandIns:
    """Both indexes, GitHub's identity provider and the proxy, inside of `with`."""

    def __init__(self, directory: Path) -> None:
        self.indexes = {name: Index(name, directory / name) for name in INDEXES}
        known = get_config(os.devnull)
        self._hosts = {
            urlsplit(known[name]["repository"] or "").netloc: name for name in INDEXES
        }
        self._authority = trustme.CA()
        self._bundle = directory / "authority.pem"
        self._authority.cert_pem.write_to_path(str(self._bundle))
        self._secret = secrets.token_hex()
        self.refused: list[str] = []

    def __enter__(self) -> StandIns:
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.standins = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=[0.01])
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def variables(self, environment: str) -> dict[str, str]:
        """Of the GitHub environment of that name."""
        simple = {name: f"{self.address}/{name}/simple/" for name in INDEXES}
        return {"SIMPLE_INDEX": simple[environment], "PROMOTE_FROM": simple[INDEXES[0]]}

    def job(self, environment: str, *, id_token: bool = True) -> dict[str, str]:
        """What GitHub sets in a job of that environment; and where twine connects."""
        variables = {
            **self.variables(environment),
            "GITHUB_ACTIONS": "true",
            "GITHUB_REPOSITORY": REPOSITORY,
            "HTTPS_PROXY": self.address,
            "NO_PROXY": "127.0.0.1",
            "REQUESTS_CA_BUNDLE": str(self._bundle),
        }
        if id_token:
            ask = f"{self.address}/identity?environment={environment}"
            variables["ACTIONS_ID_TOKEN_REQUEST_URL"] = ask
            variables["ACTIONS_ID_TOKEN_REQUEST_TOKEN"] = self._secret
        return variables

    def context(self, host: str) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._authority.issue_cert(host).configure_cert(context)
        return context

    def at(self, netloc: str) -> Index | None:
        """The stand-in for an upload address."""
        name = self._hosts.get(netloc.removesuffix(":443"))
        if name is None:
            self.refused.append(netloc)
            return None
        return self.indexes[name]

    def __call__(self, environ: Environ, start: StartResponse) -> Iterable[bytes]:
        """Answer what is asked without the proxy."""
        top, _, rest = environ["PATH_INFO"][1:].partition("/")
        if top == "identity":
            return self._identity(environ, start)
        if top in self.indexes:
            environ["SCRIPT_NAME"], environ["PATH_INFO"] = f"/{top}", f"/{rest}"
            return self.indexes[top](environ, start)
        return answer(start, "404 Not Found", {})

    def _identity(self, environ: Environ, start: StartResponse) -> Iterable[bytes]:
        if environ.get("HTTP_AUTHORIZATION") != f"bearer {self._secret}":
            return answer(start, "401 Unauthorized", {})
        query = parse_qs(environ["QUERY_STRING"])
        claims = {
            "aud": query["audience"][0],
            "environment": query["environment"][0],
            "repository": REPOSITORY,
            "workflow": WORKFLOW,
        }
        parts = [{}, claims, {}]
        coded = [base64.urlsafe_b64encode(json.dumps(part).encode()) for part in parts]
        return answer(start, "200 OK", {"value": b".".join(coded).decode()})


def answer(start: StartResponse, status: str, content: object) -> Iterable[bytes]:
    body = json.dumps(content).encode()
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    start(status, headers)
    return [body]


def cut(environ: Environ) -> Iterable[bytes]:
    environ[_CONNECTION].shutdown(socket.SHUT_RDWR)
    return []


class _Server(ThreadingMixIn, WSGIServer):
    standins: StandIns


class _Handler(WSGIRequestHandler):
    """One request by WSGI, behind the TLS of a proxied connection, too."""

    server: _Server
    timeout = 30

    def handle(self) -> None:
        if not self._read():
            return
        application: Index | StandIns | None = self.server.standins
        if self.command == "CONNECT":
            application = self.server.standins.at(self.path)
            if application is None:
                self.send_error(403)
                return
            self.send_response(200)
            self.end_headers()
            self._secure(self.path.rpartition(":")[0])
            if not self._read():
                return
        environ = {**self.get_environ(), _CONNECTION: self.connection}
        handler = ServerHandler(self.rfile, self.wfile, io.StringIO(), environ)
        handler.run(application)

    def _read(self) -> bool:
        self.raw_requestline = self.rfile.readline(65537)
        return self.parse_request()

    def _secure(self, host: str) -> None:
        context = self.server.standins.context(host)
        self.connection = context.wrap_socket(self.connection, server_side=True)
        # The old ones end with the plain socket, which is the new one's now.
        super().setup()

    def finish(self) -> None:
        super().finish()
        self.connection.close()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""
