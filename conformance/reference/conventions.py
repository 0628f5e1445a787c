"""From URIs of other networks to IDs of this homeserver (r0: ID conventions)."""

from __future__ import annotations

import string

from conformance.reference.policy import MatrixError, Policy, endpoint
from conformance.reference.store import JsonObject
from conformance.reference.web import Call

#: What stands for itself in an ID.
_PLAIN = frozenset(string.ascii_lowercase + string.digits + "._-/")


class IdConventions(Policy):
    """How URIs are translated: by writing them so that they can stand in an ID."""

    of_drafts = True

    @endpoint("GET", "/_matrix/app/r0/user", authenticated=False)
    def user(self, call: Call) -> JsonObject:
        """The full ID of the user that a URI means here."""
        return {"user_id": f"@{self.user_part(self.uri(call))}:{self.hs.server_name}"}

    @endpoint("GET", "/_matrix/app/r0/alias", authenticated=False)
    def alias(self, call: Call) -> JsonObject:
        """The full alias of the room that a URI means here."""
        return {"alias": f"#{self.alias_part(self.uri(call))}:{self.hs.server_name}"}

    def uri(self, call: Call) -> str:
        """The URI to be translated.

        :raises MatrixError: 400 M_MISSING_PARAM.
        """
        if not call.query.get("uri"):
            raise MatrixError(400, "M_MISSING_PARAM", "uri is missing")
        return call.query["uri"]

    def user_part(self, uri: str) -> str:
        """A user's localpart."""
        return self.localpart(uri)

    def alias_part(self, uri: str) -> str:
        """An alias's localpart: as for users (SHOULD)."""
        return self.localpart(uri)

    def localpart(self, uri: str) -> str:
        """A URI with all that cannot stand in an ID written as `=` and two digits: no two become the same."""
        scheme, _, rest = uri.partition("://")
        written = "".join(chr(byte) if chr(byte) in _PLAIN else f"={byte:02x}" for byte in rest.encode())
        return f"{scheme.lower()}=3a//{written}"
