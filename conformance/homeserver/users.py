"""Those who act on the homeserver: humans, ghosts and senders, and the set-up verbs they share."""

from __future__ import annotations

import itertools
import secrets
import string
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

from conformance.homeserver.client import CLIENT, Client, NoAnswer, Response, segment
from conformance.verdict import Inconclusive

#: Seconds that an event may take from being sent to being readable.
_BEHIND = 5.0


class Names:
    """Names that no other check and no earlier run uses: lower case, no underscore first, never only digits."""

    def __init__(self) -> None:
        self.run = "".join(secrets.choice(string.ascii_lowercase) for _ in range(5))
        self._count = itertools.count(1)

    def fresh(self, prefix: str = "") -> str:
        """`prefix` and a suffix of this run, such as ``hqa-qkzrt7``."""
        return f"{prefix}{self.run}{next(self._count)}"


class User:
    """Somebody who calls the homeserver: a token, and for an appservice acting as a ghost the `user_id` it asserts.

    The verbs are set-up, not verdicts: they raise :class:`Inconclusive` when the homeserver does not do as asked. A
    check that judges the answer uses :meth:`call`.
    """

    def __init__(
        self, client: Client, names: Names, party: str, token: str, user_id: str, *, asserted: bool = False
    ) -> None:
        self.client = client
        self.names = names
        #: Who calls, as the journal shows it.
        self.party = party
        self.token = token
        self.user_id = user_id
        #: Whether each call carries `user_id` as identity assertion (AS: Identity assertion).
        self.asserted = asserted

    @property
    def localpart(self) -> str:
        """The part of the user ID between the sigil and the server name."""
        return self.user_id[1:].partition(":")[0]

    @property
    def server_name(self) -> str:
        """The part of the user ID after the first colon."""
        return self.user_id.partition(":")[2]

    def __str__(self) -> str:
        return self.user_id

    def call(self, method: str, path: str, *, query: Mapping[str, str] | None = None, **options: Any) -> Response:
        """One call in this user's name; see :meth:`Client.call`. A `path` without ``/_matrix`` is under client/v3.

        :raises NoAnswer: there was no answer.
        """
        if not path.startswith("/_matrix"):
            path = CLIENT + path
        parameters = {"user_id": self.user_id} if self.asserted else {}
        options.setdefault("token", self.token)
        return self.client.call(method, path, party=self.party, query=parameters | dict(query or {}), **options)

    def do(self, what: str, method: str, path: str, **options: Any) -> Response:
        """A set-up call that must be answered 2xx.

        :raises Inconclusive: it was not.
        """
        try:
            response = self.call(method, path, **options)
        except NoAnswer as error:
            raise Inconclusive(f"set-up: {self} could not {what}: {error}", error.exchange) from error
        if not response.ok:
            raise Inconclusive(f"set-up: {self} could not {what}: answered {response}", response.exchange)
        return response

    def whoami(self, **options: Any) -> Response:
        """Ask the homeserver who this user is; whatever it answers."""
        return self.call("GET", "/account/whoami", **options)

    @contextmanager
    def calling(self, method: str, path: str, **options: Any) -> Iterator[Future[Response]]:
        """A call in a thread of its own, so that it can be seen waiting; at the end its answer is awaited."""
        with ThreadPoolExecutor(1) as pool:
            yield pool.submit(self.call, method, path, **options)

    def provoke(self, method: str, path: str, **options: Any) -> None:
        """A call whose own answer does not matter: it gives the homeserver a reason to ask an appservice."""
        with suppress(NoAnswer, Inconclusive):
            self.call(method, path, **options)

    # Rooms

    def create_room(self, **content: Any) -> str:
        """A new public room, without an alias or a directory entry unless `content` says so; its ID."""
        content.setdefault("preset", "public_chat")
        body = self.client.dialect.room(content)
        return _string(self.do("create a room", "POST", "/createRoom", json=body), "room_id")

    def invite(self, room: str, user: User | str) -> None:
        """Invite somebody to a room."""
        self.do(f"invite {user}", "POST", f"/rooms/{segment(room)}/invite", json={"user_id": str(user)})

    def join(self, room: str) -> None:
        """Join a room by its ID or alias."""
        self.do(f"join {room}", "POST", f"/join/{segment(room)}", json={})

    def leave(self, room: str) -> None:
        """Leave a room."""
        self.do(f"leave {room}", "POST", f"/rooms/{segment(room)}/leave", json={})

    def kick(self, room: str, user: User | str) -> None:
        """Remove somebody from a room."""
        self.do(f"kick {user}", "POST", f"/rooms/{segment(room)}/kick", json={"user_id": str(user)})

    def ban(self, room: str, user: User | str) -> None:
        """Ban somebody from a room."""
        self.do(f"ban {user}", "POST", f"/rooms/{segment(room)}/ban", json={"user_id": str(user)})

    def unban(self, room: str, user: User | str) -> None:
        """Lift a ban."""
        self.do(f"unban {user}", "POST", f"/rooms/{segment(room)}/unban", json={"user_id": str(user)})

    def promote(self, room: str, user: User | str, level: int = 50) -> None:
        """Give somebody a power level in a room."""
        levels = self.state(room, "m.room.power_levels")
        users = {**levels.get("users", {}), str(user): level}
        self.set_state(room, "m.room.power_levels", levels | {"users": users})

    # Events

    def send(self, room: str, body: str | None = None, **options: Any) -> str:
        """Send a text message; its event ID. Without a body the text is one that no other message has."""
        text = {"msgtype": "m.text", "body": body or f"message {self.names.fresh()}"}
        return self.send_event(room, "m.room.message", text, **options)

    def send_event(self, room: str, kind: str, content: dict[str, Any], **options: Any) -> str:
        """Send a message event of any type; its event ID."""
        path = f"/rooms/{segment(room)}/send/{segment(kind)}/{segment(self.names.fresh('t'))}"
        return _string(self.do(f"send {kind}", "PUT", path, json=content, **options), "event_id")

    def set_state(self, room: str, kind: str, content: dict[str, Any], state_key: str = "", **options: Any) -> str:
        """Send a state event; its event ID."""
        path = f"/rooms/{segment(room)}/state/{segment(kind)}/{segment(state_key)}"
        answer = self.do(f"set {kind}", "PUT", path, json=content, **options)
        if not self.client.dialect.names_state and "event_id" not in answer.json:
            return self._state_event(room, kind, state_key)
        return _string(answer, "event_id")

    def state(self, room: str, kind: str, state_key: str = "") -> dict[str, Any]:
        """The content of a room's present state."""
        path = f"/rooms/{segment(room)}/state/{segment(kind)}/{segment(state_key)}"
        return self.do(f"read {kind}", "GET", path).json

    def member_event(self, room: str, user: User | str) -> str:
        """The event ID of somebody's present membership in a room."""
        return self._state_event(room, "m.room.member", str(user))

    def _state_event(self, room: str, kind: str, state_key: str) -> str:
        for event in self.do("read the room's state", "GET", f"/rooms/{segment(room)}/state").value or ():
            if event.get("type") == kind and event.get("state_key") == state_key:
                return str(event["event_id"])
        what = f"membership of {state_key}" if kind == "m.room.member" else kind
        raise Inconclusive(f"set-up: {room} has no {what}")

    def redact(self, room: str, event: str) -> str:
        """Redact an event; the event ID of the redaction."""
        path = f"/rooms/{segment(room)}/redact/{segment(event)}/{segment(self.names.fresh('t'))}"
        return _string(self.do("redact", "PUT", path, json={}), "event_id")

    def event(self, room: str, event: str) -> dict[str, Any]:
        """An event as this user sees it; some homeservers need a moment until what was sent can be read."""
        deadline = time.monotonic() + _BEHIND
        while True:
            try:
                path = self.client.dialect.event_path.format(room=segment(room), event=segment(event))
                return self.client.dialect.seen(self.do(f"read {event}", "GET", path).json)
            except Inconclusive:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def timeline(self, room: str, limit: int = 100) -> list[dict[str, Any]]:
        """The last events of a room, oldest first."""
        dialect = self.client.dialect
        query = {"dir": "b", "limit": str(limit), **dialect.history}
        chunk = self.do("read the timeline", "GET", f"/rooms/{segment(room)}/messages", query=query).json.get("chunk")
        return [dialect.seen(event) for event in reversed(chunk)] if isinstance(chunk, list) else []

    # Directory and profile

    def set_alias(self, alias: str, room: str) -> None:
        """Point an alias at a room."""
        self.do(f"set {alias}", "PUT", f"/directory/room/{segment(alias)}", json={"room_id": room})

    def remove_alias(self, alias: str) -> None:
        """Delete an alias."""
        self.do(f"delete {alias}", "DELETE", f"/directory/room/{segment(alias)}")

    def resolve(self, alias: str) -> str | None:
        """The room an alias points at; None when there is none."""
        response = self.call("GET", f"/directory/room/{segment(alias)}")
        room = response.json.get("room_id")
        return room if response.ok and isinstance(room, str) else None

    def alias(self, localpart: str) -> str:
        """A room alias on this user's server."""
        return f"#{localpart}:{self.server_name}"


def _string(response: Response, key: str) -> str:
    value = response.json.get(key)
    if not isinstance(value, str):
        raise Inconclusive(f"set-up: {response.exchange.raw_path} was answered without a {key}", response.exchange)
    return value
