"""pypiserver for each directory that is named, below one port on loopback.

It is a process of its own, since pypiserver changes how its Python imports. The
port is printed; it ends when its standard input does, so with whoever started it.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import pypiserver

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Handler(WSGIRequestHandler):
    def log_request(self, code: object = "-", size: object = "-") -> None:
        """Say nothing."""


def main(directories: list[Path]) -> None:
    applications: dict[str, WSGIApplication] = {
        directory.name: pypiserver.app(
            roots=[directory],
            authenticate=[],
            password_file=os.curdir,
            disable_fallback=True,
            hash_algo="sha256",
            backend_arg="simple-dir",
        )
        for directory in directories
    }

    def serve(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        name, _, rest = environ["PATH_INFO"][1:].partition("/")
        environ["SCRIPT_NAME"], environ["PATH_INFO"] = f"/{name}", f"/{rest}"
        return applications[name](environ, start)

    server = _Server(("127.0.0.1", 0), _Handler)
    server.set_app(serve)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_port, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main([Path(name) for name in sys.argv[1:]])
