"""The pages of the exporter."""

from __future__ import annotations

import errno
import zlib
from math import isfinite
from time import perf_counter
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from pychrony._address import parse
from pychrony.exceptions import ChronyAddressError, ChronyError

from ._http import Request, Response, text
from ._text import Text

if TYPE_CHECKING:
    from ._own import Own
    from ._scraper import Scraper
    from ._targets import Targets
    from ._web import Web

# The shortest time for a scrape [s].
_SHORTEST = 0.01

_LANDING = """\
<!DOCTYPE html>
<html lang="en">
<head><title>pychrony exporter</title></head>
<body>
<h1>pychrony exporter</h1>
<p><a href="{path}">Metrics</a> of the chronyd of this exporter</p>
<form action="/probe">
<label>Metrics of another: <input name="target" placeholder="192.0.2.7"></label>
<button>Probe</button>
</form>
<p>{allowed}</p>
</body>
</html>
"""


class Pages:
    """Answers requests.

    Args:
        scraper: reads the chronyds.
        targets: what may be probed.
        own: the exporter's own metrics.
        web: the users, and the headers of a response.
        timeout_offset: seconds from the end of a scrape to the timeout of Prometheus.
        path: of the metrics of the exporter's own chronyd.
    """

    def __init__(
        self,
        scraper: Scraper,
        targets: Targets,
        own: Own,
        web: Web,
        *,
        timeout_offset: float,
        path: str,
    ) -> None:
        self._scraper = scraper
        self._targets = targets
        self._own = own
        self._web = web
        self._timeout_offset = timeout_offset
        self._path = path
        self._pages = {
            "/": self._landing,
            "/probe": self._probe,
            "/-/healthy": self._healthy,
            "/-/ready": self._healthy,
            path: self._metrics,
        }

    async def answer(self, request: Request) -> Response:
        """Return the response to a request."""
        if await self._web.permits(request.headers.get("authorization", "")):
            try:
                response = await self._page(request)
            except _RefusedError as refused:
                response = text(refused.status, str(refused))
        else:
            response = text(401, "Unauthorized")
            response.headers["WWW-Authenticate"] = "Basic"
        response.headers |= self._web.headers
        self._own.request(response.status)
        return response

    async def _page(self, request: Request) -> Response:
        page = self._pages.get(request.path)
        if page is None:
            raise _RefusedError(
                404,
                f"there is nothing but /, {self._path}, /probe, /-/healthy "
                "and /-/ready",
            )
        if request.method not in ("GET", "HEAD"):
            raise _RefusedError(405, "use GET or HEAD")
        return await page(request)

    async def _healthy(self, request: Request) -> Response:
        return text(200, "Healthy")

    async def _landing(self, request: Request) -> Response:
        from html import escape  # takes milliseconds, and few look at it

        entries = ", ".join(self._targets.entries) or "nothing, see --allow"
        allowed = escape(f"May be probed: {entries}")
        page = _LANDING.format(path=escape(self._path), allowed=allowed)
        return Response(200, page.encode(), "text/html; charset=utf-8")

    async def _metrics(self, request: Request) -> Response:
        return await self._scrape(request, None)

    async def _probe(self, request: Request) -> Response:
        given = parse_qs(request.query).get("target", [])
        if len(given) != 1:
            raise _RefusedError(400, "give one target: /probe?target=ADDRESS")
        try:
            target = parse(given[0])
        except ChronyAddressError as error:
            raise _RefusedError(400, error.message) from error
        if target not in self._targets:
            raise _RefusedError(
                403,
                f"{given[0]!r} is not allowed as a target: see the option --allow of "
                "the exporter",
            )
        return await self._scrape(request, given[0])

    async def _scrape(self, request: Request, target: str | None) -> Response:
        budget = self._budget(request)
        page = Text(openmetrics="openmetrics-text" in request.headers.get("accept", ""))
        begin = perf_counter()
        self._own.scrape_begins("metrics" if target is None else "probe")
        reading = None
        try:
            reading = await self._scraper.read(target, budget)
            if any(map(_lacks_descriptors, reading.errors)):
                raise _RefusedError(503, "no descriptor is left, see LimitNOFILE")
            page.reading(reading, await self._scraper.names(reading))
        finally:
            errors = reading.errors if reading else []
            self._own.scrape_ends(perf_counter() - begin, errors)
        if target is None:
            self._own.write(page)
        response = Response(200, page.done(), page.kind)
        if "gzip" in request.headers.get("accept-encoding", ""):
            # A higher level takes three times as long and saves a tenth.
            packer = zlib.compressobj(1, wbits=31)
            response.body = packer.compress(response.body) + packer.flush()
            response.headers["Content-Encoding"] = "gzip"
        return response

    def _budget(self, request: Request) -> float | None:
        """Return the maximum time for the scrape [s]."""
        header = request.headers.get("x-prometheus-scrape-timeout-seconds")
        if header is None:
            return None
        try:
            seconds = float(header)
        except ValueError:
            seconds = 0.0
        if not (isfinite(seconds) and seconds >= _SHORTEST):
            raise _RefusedError(
                400,
                f"X-Prometheus-Scrape-Timeout-Seconds: {header!r} is not a number "
                f"of {_SHORTEST} or more",
            )
        return max(seconds - self._timeout_offset, seconds / 2)


def _lacks_descriptors(error: ChronyError) -> bool:
    """Whether an error is due to a lack of descriptors here."""
    return getattr(error.__cause__, "errno", 0) in (errno.EMFILE, errno.ENFILE)


class _RefusedError(Exception):
    """A request that is answered with an error."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
