"""The HTTP side of the reference homeserver: from a request to a policy's method and back.

The standard library reads and writes HTTP, Werkzeug routes. Paths are split before they are decoded, so that an ID may
contain a slash.
"""

from __future__ import annotations

import json
import logging
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from werkzeug.datastructures import Headers
from werkzeug.exceptions import MethodNotAllowed, NotFound
from werkzeug.routing import BaseConverter, Map, Rule
from werkzeug.sansio.request import Request

from conformance.reference.policy import Endpoint, MatrixError, Policy, endpoints_of
from conformance.reference.store import JsonObject

if TYPE_CHECKING:
    from conformance.reference.homeserver import Homeserver
    from conformance.reference.identity import Requester

#: Stands for a slash inside a path segment until the path has been split.
_SLASH = "\0"

#: Bytes of the longest body that is read.
_LONGEST_BODY = 50 * 1024 * 1024


class Call:
    """A call of the client-server API on its way through the policies."""

    def __init__(self, request: Request, path: str, body: bytes) -> None:
        self.request = request
        self.method = request.method
        #: The path as it was sent.
        self.path = path
        self.query: dict[str, str] = request.args.to_dict()
        self.body = body
        self._requester: Requester | None = None

    @property
    def requester(self) -> Requester:
        """Who calls; endpoints that need no token have none."""
        if self._requester is None:
            raise LookupError("an endpoint without authentication asks who calls")
        return self._requester

    @requester.setter
    def requester(self, value: Requester) -> None:
        self._requester = value

    @property
    def token(self) -> str | None:
        """The access token: of the header, or of the query (CS: Using access tokens; deprecated since v1.11)."""
        scheme, _, credentials = self.request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return credentials.strip()
        return self.query.get("access_token")

    @property
    def json(self) -> JsonObject:
        """The body, which has to be a JSON object; an empty one may be left out.

        :raises MatrixError: it is none.
        """
        if not self.body.strip():
            return {}
        try:
            body = json.loads(self.body)
        except ValueError as error:
            raise MatrixError(400, "M_NOT_JSON", f"the body is no JSON: {error}") from error
        if not isinstance(body, dict):
            raise MatrixError(400, "M_BAD_JSON", "the body is no JSON object")
        return body

    def text(self, key: str, *, default: str | None = None) -> str:
        """A string of the body.

        :raises MatrixError: it is missing and has no default, or is no string.
        """
        value = self.json.get(key, default)
        if value is None:
            raise MatrixError(400, "M_MISSING_PARAM", f"{key} is missing")
        if not isinstance(value, str):
            raise MatrixError(400, "M_INVALID_PARAM", f"{key} is no string")
        return value


@dataclass
class Answer:
    """What a call is answered."""

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)


class Created(dict[str, Any]):
    """A body that is answered with 201."""


def answer(body: Any, status: int = 200) -> Answer:
    """A JSON answer."""
    return Answer(status, json.dumps(body, ensure_ascii=False).encode())


class Errors(Policy):
    """How calls fail (CS: Standard error response)."""

    def unknown_path(self) -> MatrixError:
        """There is no such endpoint: 404 M_UNRECOGNIZED (CS: Common error codes, since v1.6)."""
        return MatrixError(404, "M_UNRECOGNIZED", "unknown endpoint")

    def unknown_method(self) -> MatrixError:
        """The endpoint does not have that method: 405 M_UNRECOGNIZED."""
        return MatrixError(405, "M_UNRECOGNIZED", "the endpoint does not have that method")

    def answer(self, call: Call, error: MatrixError) -> Answer:
        """An error as an answer: a JSON object with `errcode` and `error`."""
        return answer(error.body, error.status)


class Paths(Policy):
    """Where endpoints are served."""

    def of(self, path: str) -> set[str]:
        """The client-server API's present base path and the one before."""
        return {path, path.replace("/client/v3/", "/client/r0/")}

    def decoded(self, path: str) -> str:
        """A path with its segments decoded after they were split, so that slashes in IDs separate nothing."""
        return "/".join(unquote(segment).replace("/", _SLASH) for segment in path.split("/"))


class Connections(Policy):
    """How the connections of clients are treated, which the specification leaves open."""

    #: Seconds before each call is answered.
    delay = 0.0
    keep_alive = True


class _Segment(BaseConverter):
    """One path segment, which is not empty."""

    regex = "[^/]+"

    def to_python(self, value: str) -> str:
        return value.replace(_SLASH, "/")


class _Key(_Segment):
    """One path segment, which may be empty, such as a state key."""

    regex = "[^/]*"


class Application:
    """Calls to answers."""

    def __init__(self, hs: Homeserver) -> None:
        self.hs = hs
        rules = []
        for policy in hs.policies:
            if policy.of_drafts and hs.dialect.is_modern:
                continue
            for endpoint, function in endpoints_of(policy):
                paths = hs.paths.of(endpoint.path)
                rules += [Rule(path, methods=[endpoint.method], endpoint=(endpoint, function)) for path in paths]
        converters = {"default": _Segment, "key": _Key}
        self._map = Map(rules, converters=converters, merge_slashes=False, strict_slashes=True).bind("")

    def answer(self, method: str, target: str, headers: Headers, body: bytes) -> Answer:
        """The answer to a call."""
        raw, _, search = target.partition("?")
        request = Request(method, "http", None, "", raw, search.encode("latin-1"), headers, None)
        call = Call(request, raw, body)
        try:
            result = self._dispatch(call)
        except MatrixError as error:
            result = self.hs.errors.answer(call, error)
        except Exception as error:  # the process must survive, and the log must say what happened
            logging.getLogger(__name__).error("%s %s\n%s", method, raw, traceback.format_exc())
            result = self.hs.errors.answer(call, MatrixError(500, "M_UNKNOWN", f"internal error: {error!r}"))
        return result

    def _dispatch(self, call: Call) -> Answer:
        if self.hs.connections.delay:
            self.hs.stopping.wait(self.hs.connections.delay)
        path = self.hs.paths.decoded(call.path)
        try:
            matched, arguments = self._map.match(path, call.method)
        except MethodNotAllowed as error:
            raise self.hs.errors.unknown_method() from error
        except NotFound as error:
            raise self.hs.errors.unknown_path() from error
        endpoint, function = matched
        result = self._serve(call, endpoint, function, dict(arguments))
        return result if isinstance(result, Answer) else answer(result, 201 if isinstance(result, Created) else 200)

    def _serve(self, call: Call, endpoint: Endpoint, function: Callable[..., Any], arguments: dict[str, str]) -> Any:
        if endpoint.authenticated:
            self.hs.identity.ask_first(call)
        with self.hs.lock:
            if endpoint.authenticated:
                call.requester = self.hs.identity.of(call)
            if not endpoint.waits:
                return function(call, **arguments)
        return function(call, **arguments)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    #: Head and body leave together.
    wbufsize = -1
    server: Server

    def _serve(self) -> None:
        length = self.headers.get("Content-Length", "0")
        if not length.isdigit() or int(length) > _LONGEST_BODY or "Transfer-Encoding" in self.headers:
            self.close_connection = True
            self._send(answer({"errcode": "M_UNKNOWN", "error": "a Content-Length is needed"}, 411))
            return
        body = self.rfile.read(int(length))
        self._send(self.server.application.answer(self.command, self.path, Headers(self.headers.items()), body))

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = do_OPTIONS = do_PATCH = _serve  # noqa: N815

    def _send(self, result: Answer) -> None:
        hs = self.server.application.hs
        self.send_response_only(result.status)
        headers = {
            "Date": hs.clock.http_date(),
            "Server": hs.server_header,
            "Content-Type": result.content_type,
            "Content-Length": str(len(result.body)),
            **result.headers,
        }
        if not hs.connections.keep_alive:
            headers["Connection"] = "close"
            self.close_connection = True
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(result.body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the suite records what it sends."""

    def handle(self) -> None:
        try:
            super().handle()
        except OSError:
            self.close_connection = True  # the client is gone


class Server(ThreadingHTTPServer):
    """The listening socket and its threads."""

    daemon_threads = True
    request_queue_size = 128
    #: What is served; set before the first connection is accepted.
    application: Application

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say in the log what went wrong with a connection."""
        logging.getLogger(__name__).error("a connection failed\n%s", traceback.format_exc())


def serve(hs: Homeserver, host: str, port: int) -> Server:
    """Start serving in threads, until the server is shut down.

    :raises OSError: the port cannot be had.
    """
    server = Server((host, port), _Handler)
    server.application = Application(hs)
    threading.Thread(target=server.serve_forever, args=(0.02,), name="reference", daemon=True).start()
    return server
