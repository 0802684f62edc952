"""Stand-ins on loopback for two package indexes and GitHub's identity provider.

The indexes are pypiserver. twine, unchanged, reaches them under their real names
through a proxy: it asks the proxy for a connection to the address that it knows,
and the proxy answers itself, with a certificate of an authority of its own. Other
hosts the proxy refuses, so nothing gets out. What is not real: the index does not
check the signature of an identity, and pypiserver takes attestations unread.
"""

from __future__ import annotations

import base64
import contextlib
import enum
import http.client
import json
import os
import secrets
import socket
import ssl
import struct
import subprocess
import sys
import threading
from dataclasses import dataclass, replace
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BufferedIOBase
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import trustme
from twine.utils import get_config

from .publishing import INDEXES, TEST, WORKFLOW

REPOSITORY = "somebody/pychrony"
CLAIMS = {"repository": REPOSITORY, "workflow": WORKFLOW}
_SERVER = Path(__file__).with_name("packages.py")
# So often twine connects after a cut, with headers alone: the body is used up.
_TRIES = 10
# Status, content type, body.
Reply = tuple[int, str, bytes]


@dataclass(frozen=True)
class Request:
    path: str
    query: dict[str, list[str]]
    headers: Message
    stream: BufferedIOBase

    def body(self, share: float = 1) -> bytes:
        return self.stream.read(int(share * int(self.headers["Content-Length"])))


class Fault(enum.Enum):
    """What goes wrong with one upload."""

    CUT_SENDING = enum.auto()
    CUT_AFTER_STORING = enum.auto()
    ERROR_AFTER_STORING = enum.auto()


class Packages:
    """pypiserver for every index, inside of `with`; packages.py says more."""

    def __init__(self, directory: Path) -> None:
        # Where it stores what is uploaded, and finds what is not.
        self.directories = {name: directory / name for name in INDEXES}
        for path in self.directories.values():
            path.mkdir()

    def __enter__(self) -> Packages:
        self._process = subprocess.Popen(
            [sys.executable, "-I", str(_SERVER), *map(str, self.directories.values())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert self._process.stdout
        self._port = int(self._process.stdout.readline())
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._process.communicate()

    def ask(
        self, method: str, path: str, body: bytes, headers: dict[str, str]
    ) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            kind = str(response.headers["Content-Type"])
            return response.status, kind, response.read()


class Index:
    """One package index, with one trusted publisher: the environment of its name."""

    def __init__(self, name: str, packages: Packages) -> None:
        self.name = name
        self.directory = packages.directories[name]
        # So many requests are answered as by a server without its application.
        self.down = 0
        # What goes wrong with the next uploads, one each.
        self.faults: list[Fault] = []
        # Whether files are served with other bytes than the list says.
        self.tampered = False
        # Whether what is stored is missing from the list, as after deleting it.
        self.hidden = False
        # So many connections are reset at once.
        self.unreachable = 0
        self.uploads = 0
        self.attested = 0
        self._packages = packages
        self._token = secrets.token_hex()

    def answer(self, request: Request) -> Reply | None:
        """What to reply; None for nothing and a cut connection."""
        if self.down:
            self.down -= 1
            return as_json(503, {})
        match request.path:
            case "/_/oidc/audience":
                return as_json(200, {"audience": self.name})
            case "/_/oidc/mint-token":
                return self._mint(json.loads(request.body())["token"])
            case "/legacy/":
                return self._upload(request)
            case path:
                return self._get(path)

    def _get(self, path: str) -> Reply:
        if self.hidden and path.startswith("/simple/"):
            return as_json(404, {})
        if self.tampered and path.startswith("/packages/"):
            return as_json(200, "other bytes")
        return self._packages.ask("GET", f"/{self.name}{path}", b"", {})

    def _mint(self, identity: str) -> Reply:
        claims = json.loads(base64.urlsafe_b64decode(identity.split(".")[1]))
        if claims == {**CLAIMS, "aud": self.name, "environment": self.name}:
            return as_json(200, {"success": True, "token": self._token})
        # In the words of the real ones.
        problem = {
            "code": "invalid-publisher",
            "description": "valid token, but no corresponding publisher "
            "(Publisher with matching claims was not found)",
        }
        refusal = {"message": "Token request failed", "errors": [problem]}
        return as_json(422, refusal)

    def _upload(self, request: Request) -> Reply | None:
        self.uploads += 1
        fault = self.faults.pop(0) if self.faults else None
        if fault is Fault.CUT_SENDING:
            request.body(0.5)
            self.unreachable = _TRIES
            return None
        body = request.body()
        self.attested += b'name="attestations"' in body
        credentials = base64.b64encode(f"__token__:{self._token}".encode()).decode()
        if request.headers["Authorization"] != f"Basic {credentials}":
            return as_json(403, {})
        names = ("Content-Type", "User-Agent")
        headers = {name: request.headers[name] for name in names}
        stored = self._packages.ask("POST", f"/{self.name}/", body, headers)
        if fault is Fault.CUT_AFTER_STORING:
            self.unreachable = _TRIES
            return None
        if fault is Fault.ERROR_AFTER_STORING:
            return as_json(502, {})
        return stored


class StandIns:
    """Both indexes, GitHub's identity provider and the proxy, inside of `with`."""

    def __init__(self, directory: Path, packages: Packages) -> None:
        self.indexes = {name: Index(name, packages) for name in INDEXES}
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

    def __exit__(self, *exc_info: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def variables(self, environment: str) -> dict[str, str]:
        """Of the GitHub environment of that name."""
        simple = {name: f"{self.address}/{name}/simple/" for name in INDEXES}
        return {"SIMPLE_INDEX": simple[environment], "PROMOTE_FROM": simple[TEST]}

    def job(self, environment: str, *, id_token: bool = True) -> dict[str, str]:
        """What GitHub sets in a job of that environment; and where twine connects."""
        variables = {
            **self.variables(environment),
            "GITHUB_ACTIONS": "true",
            "GITHUB_REPOSITORY": REPOSITORY,
            # Where there are two, the lower-case one counts.
            **dict.fromkeys(("HTTPS_PROXY", "https_proxy"), self.address),
            **dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1"),
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

    def answer(self, request: Request) -> Reply | None:
        """Reply to what is asked without the proxy."""
        top, _, rest = request.path[1:].partition("/")
        if top == "identity":
            return self._identity(request)
        if top in self.indexes:
            return self.indexes[top].answer(replace(request, path=f"/{rest}"))
        return as_json(404, {})

    def _identity(self, request: Request) -> Reply:
        if request.headers["Authorization"] != f"bearer {self._secret}":
            return as_json(401, {})
        claims = {
            **CLAIMS,
            "aud": request.query["audience"][0],
            "environment": request.query["environment"][0],
        }
        parts = [{}, claims, {}]
        coded = [base64.urlsafe_b64encode(json.dumps(part).encode()) for part in parts]
        return as_json(200, {"value": b".".join(coded).decode()})


def as_json(status: int, content: object) -> Reply:
    return status, "application/json", json.dumps(content).encode()


class _Server(ThreadingHTTPServer):
    standins: StandIns
    # Closing waits for the threads.
    daemon_threads = False


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = 30
    index: Index | None = None

    def do_CONNECT(self) -> None:
        """Be the host that is asked for, if there is a stand-in for it."""
        self.index = self.server.standins.at(self.path)
        if self.index is None:
            self.send_error(403)
            return
        if self.index.unreachable:
            self.index.unreachable -= 1
            self._reset()
            return
        self.send_response(200)
        self.end_headers()
        context = self.server.standins.context(self.path.rpartition(":")[0])
        self.request = context.wrap_socket(self.connection, server_side=True)
        self.setup()
        self.close_connection = False

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = parse_qs(url.query)
        request = Request(url.path, query, self.headers, self.rfile)
        reply = (self.index or self.server.standins).answer(request)
        if reply is None:
            self._reset()
            return
        status, kind, body = reply
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.do_GET()

    def _reset(self) -> None:
        """Make closing the connection a reset, not an end."""
        linger = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.close_connection = True

    def finish(self) -> None:
        super().finish()
        self.connection.close()

    def log_request(self, code: object = "-", size: object = "-") -> None:
        """Say nothing."""
