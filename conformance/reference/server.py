"""What the homeserver says of itself (CS: API standards, Capabilities; federation: Server versions), and its media."""

from __future__ import annotations

import secrets

from conformance.reference.policy import MatrixError, Policy, endpoint
from conformance.reference.rooms import VERSIONS
from conformance.reference.store import JsonObject
from conformance.reference.web import Answer, Call


class Server(Policy):
    """Versions and capabilities."""

    #: What `/versions` lists.
    versions: tuple[str, ...] = tuple(f"v1.{minor}" for minor in range(1, 20))

    @endpoint("GET", "/_matrix/client/versions", authenticated=False)
    def supported(self, call: Call) -> JsonObject:
        """The versions of the specification."""
        return {"versions": list(self.versions), "unstable_features": {}}

    @endpoint("GET", "/_matrix/federation/v1/version", authenticated=False)
    def software(self, call: Call) -> JsonObject:
        """Name and version of this software."""
        name, _, version = self.hs.server_header.partition("/")
        return {"server": {"name": name, "version": version}}

    @endpoint("GET", "/capabilities")
    def capabilities(self, call: Call) -> JsonObject:
        """What can be done here."""
        available = dict.fromkeys(VERSIONS, "stable")
        return {"capabilities": {"m.room_versions": {"default": self.hs.rooms.default_version, "available": available}}}


class Media(Policy):
    """Uploads, which are forgotten when the process ends."""

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self._kept: dict[str, tuple[str, bytes]] = {}

    @endpoint("POST", "/_matrix/media/v3/upload")
    def upload(self, call: Call) -> JsonObject:
        """Keep a file."""
        name = secrets.token_urlsafe(12)
        self._kept[name] = (call.request.headers.get("Content-Type", "application/octet-stream"), call.body)
        return {"content_uri": f"mxc://{self.hs.server_name}/{name}"}

    @endpoint("GET", "/_matrix/client/v1/media/download/<server>/<name>")
    def download(self, call: Call, server: str, name: str) -> Answer:
        """A file kept before."""
        if server != self.hs.server_name or name not in self._kept:
            raise MatrixError(404, "M_NOT_FOUND", "there is no such file")
        kind, content = self._kept[name]
        return Answer(200, content, kind)
