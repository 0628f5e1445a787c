"""What the reference homeserver knows: accounts, devices, rooms, aliases, and each appservice's queue.

All of it is in memory. With a file, every change is a line of JSON in it before it takes effect, so that the homeserver
comes back from an orderly stop or a crash with everything it ever acknowledged.
"""

from __future__ import annotations

import functools
import json
import os
import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

JsonObject = dict[str, Any]


@dataclass
class Account:
    """A user of this homeserver."""

    user_id: str
    #: The id of the appservice that registered it; None for humans.
    appservice: str | None = None
    #: None: no password logs in.
    password: str | None = None
    deactivated: bool = False
    profile: dict[str, Any] = field(default_factory=dict)
    #: Account data by room (empty: none) and type.
    data: dict[str, dict[str, JsonObject]] = field(default_factory=lambda: defaultdict(dict))
    filters: list[JsonObject] = field(default_factory=list)
    devices: dict[str, JsonObject] = field(default_factory=dict)
    #: Device keys and counts of one-time keys, by device.
    keys: dict[str, JsonObject] = field(default_factory=dict)
    one_time_keys: dict[str, JsonObject] = field(default_factory=lambda: defaultdict(dict))
    #: Cross-signing keys by their use: master, self_signing, user_signing.
    signing_keys: dict[str, JsonObject] = field(default_factory=dict)


@dataclass
class Event:
    """An event as it is kept; :class:`conformance.reference.events.Format` says what others get to see of it."""

    event_id: str
    room_id: str
    type: str
    sender: str
    content: JsonObject
    origin_server_ts: int
    state_key: str | None = None
    redacts: str | None = None
    #: The state event that this one replaces.
    replaces: str | None = None
    prev_content: JsonObject | None = None
    #: The client transaction that sent it: user, device, transaction ID.
    transaction: tuple[str, str, str] | None = None
    #: The redaction of this event.
    redacted_by: str | None = None
    #: Its place in the homeserver's event stream.
    position: int = 0

    @property
    def is_state(self) -> bool:
        """Whether it is a state event."""
        return self.state_key is not None

    @property
    def membership(self) -> str | None:
        """The membership that it gives to its state key; None when it is no membership event."""
        value = self.content.get("membership")
        return value if self.type == "m.room.member" and isinstance(value, str) else None


@dataclass
class Room:
    """A room: its events in order, and its present state."""

    room_id: str
    version: str
    creators: list[str]
    events: list[Event] = field(default_factory=list)
    state: dict[tuple[str, str], Event] = field(default_factory=dict)

    def content(self, kind: str, state_key: str = "") -> JsonObject:
        """The content of present state; empty when there is none."""
        event = self.state.get((kind, state_key))
        return event.content if event else {}

    def membership(self, user_id: str) -> str | None:
        """A user's present membership."""
        event = self.state.get(("m.room.member", user_id))
        return event.membership if event else None

    def members(self, membership: str = "join") -> list[str]:
        """The users who have that membership now."""
        return [
            key
            for (kind, key), event in self.state.items()
            if kind == "m.room.member" and event.membership == membership
        ]


@dataclass
class Queue:
    """What an appservice has still to be told: a transaction that it has not acknowledged, and what comes after."""

    #: Items are `["event", {...}]` and `["ephemeral", {...}]`.
    waiting: list[tuple[str, JsonObject]] = field(default_factory=list)
    #: Transaction ID and body.
    pending: tuple[str, JsonObject] | None = None


def recorded(method: Callable[Concatenate[Store, P], R]) -> Callable[Concatenate[Store, P], R]:
    """Write a change to the store's file, if it has one, before it is made. Its arguments must be JSON."""

    def change(store: Store, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with store.lock:
            store.write(method.__name__, args, kwargs)
            return method(store, *args, **kwargs)

    functools.update_wrapper(change, method)
    return change


class Store:
    """All that is known, and every way in which it can change."""

    def __init__(self, path: Path | None = None) -> None:
        self.lock = threading.RLock()
        self.accounts: dict[str, Account] = {}
        #: User ID and device of each access token.
        self.tokens: dict[str, tuple[str, str]] = {}
        self.rooms: dict[str, Room] = {}
        self.events: dict[str, Event] = {}
        self.stream: list[Event] = []
        #: Room ID and creator of each alias.
        self.aliases: dict[str, tuple[str, str]] = {}
        self._aliases_of: dict[str, set[str]] = {}
        #: Published rooms by list: the empty name is the homeserver's own.
        self.lists: dict[str, list[str]] = defaultdict(list)
        self.queues: dict[str, Queue] = defaultdict(Queue)
        #: How many transactions each appservice was given so far.
        self.transactions: dict[str, int] = defaultdict(int)
        #: Whether it was stopped in order the last time; None: it has no past.
        self.stopped_in_order: bool | None = None
        #: Answers to client transactions.
        self.answers: dict[str, JsonObject] = {}
        #: To-device messages by user and device.
        self.to_device: dict[tuple[str, str], list[tuple[int, JsonObject]]] = defaultdict(list)
        self._count = 0
        self._file = None
        if path is not None:
            self._replay(path)
            self._file = path.open("a", encoding="utf-8")

    def _replay(self, path: Path) -> None:
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
            try:
                name, args, kwargs = json.loads(line)
            except ValueError:
                continue  # a crash in the middle of the last line: that change was never acknowledged
            getattr(self, name)(*args, **kwargs)

    def write(self, name: str, args: object, kwargs: object) -> None:
        """Have a change in the file, for a process that is killed the next moment."""
        if self._file is not None:
            self._file.write(json.dumps([name, args, kwargs]) + "\n")
            self._file.flush()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._file = None

    def next_number(self) -> int:
        """A number that is higher than all before, for positions in streams."""
        self._count += 1
        return self._count

    @property
    def position(self) -> int:
        """The highest number given so far."""
        return self._count

    # Accounts

    @recorded
    def add_account(self, user_id: str, appservice: str | None = None, password: str | None = None) -> None:
        """A new user, of an appservice or with a password."""
        self.accounts[user_id] = Account(user_id, appservice, password)

    @recorded
    def deactivate(self, user_id: str) -> None:
        """End a user and its tokens."""
        self.accounts[user_id].deactivated = True
        self.tokens = {token: (user, device) for token, (user, device) in self.tokens.items() if user != user_id}

    @recorded
    def set_profile(self, user_id: str, key: str, value: Any) -> None:
        """Set a field of a profile."""
        self.accounts[user_id].profile[key] = value

    @recorded
    def set_account_data(self, user_id: str, room_id: str, kind: str, content: JsonObject) -> None:
        """Set account data of a room, or (room empty) of none."""
        self.accounts[user_id].data[room_id][kind] = content

    @recorded
    def add_filter(self, user_id: str, content: JsonObject) -> int:
        """Keep a filter; its number."""
        self.accounts[user_id].filters.append(content)
        return len(self.accounts[user_id].filters) - 1

    @recorded
    def add_token(self, token: str, user_id: str, device_id: str) -> None:
        """An access token of a device."""
        self.tokens[token] = (user_id, device_id)

    @recorded
    def drop_tokens(self, user_id: str, device_id: str | None = None) -> None:
        """End the tokens of a device, or of all devices of a user."""
        self.tokens = {
            token: (user, device)
            for token, (user, device) in self.tokens.items()
            if user != user_id or device_id not in (None, device)
        }

    @recorded
    def put_device(self, user_id: str, device_id: str, fields: JsonObject) -> None:
        """Make a device, or change fields of it."""
        self.accounts[user_id].devices.setdefault(device_id, {}).update(fields)

    @recorded
    def drop_device(self, user_id: str, device_id: str) -> None:
        """Delete a device and its keys."""
        account = self.accounts[user_id]
        account.devices.pop(device_id, None)
        account.keys.pop(device_id, None)
        account.one_time_keys.pop(device_id, None)

    @recorded
    def put_keys(self, user_id: str, device_id: str, keys: JsonObject | None, one_time: JsonObject) -> None:
        """Keep the keys of a device."""
        account = self.accounts[user_id]
        if keys is not None:
            account.keys[device_id] = keys
        account.one_time_keys[device_id].update(one_time)

    @recorded
    def put_signing_keys(self, user_id: str, keys: JsonObject) -> None:
        """Keep cross-signing keys, by their use."""
        self.accounts[user_id].signing_keys.update(keys)

    @recorded
    def add_to_device(self, user_id: str, device_id: str, message: JsonObject) -> None:
        """Keep a message for a device until it has been synced."""
        self.to_device[user_id, device_id].append((self.next_number(), message))

    @recorded
    def remember_answer(self, key: str, answer: JsonObject) -> None:
        """Keep the answer to a client transaction."""
        self.answers[key] = answer

    # Rooms

    @recorded
    def add_room(self, room_id: str, version: str, creators: list[str]) -> None:
        """A new room, without any event."""
        self.rooms[room_id] = Room(room_id, version, creators)

    def add_event(self, event: Event) -> Event:
        """Append an event to its room, and make it the room's state if it is state."""
        fields = {key: value for key, value in asdict(event).items() if value is not None and key != "position"}
        return self._add_event(fields)

    @recorded
    def _add_event(self, fields: JsonObject) -> Event:
        event = Event(**fields)
        if event.transaction is not None:
            user_id, device_id, txn_id = event.transaction
            event.transaction = (user_id, device_id, txn_id)
        event.position = self.next_number()
        room = self.rooms[event.room_id]
        room.events.append(event)
        self.events[event.event_id] = event
        self.stream.append(event)
        if event.state_key is not None:
            room.state[event.type, event.state_key] = event
        return event

    @recorded
    def redact(self, event_id: str, content: JsonObject, redaction: str) -> None:
        """Leave an event only the content that survives its redaction."""
        event = self.events[event_id]
        event.content = content
        event.prev_content = None
        event.redacted_by = redaction

    @recorded
    def set_alias(self, alias: str, room_id: str, creator: str) -> None:
        """Point an alias at a room."""
        self._forget(alias)
        self.aliases[alias] = (room_id, creator)
        self._aliases_of.setdefault(room_id, set()).add(alias)

    @recorded
    def drop_alias(self, alias: str) -> None:
        """Delete an alias."""
        self._forget(alias)

    def _forget(self, alias: str) -> None:
        room_id, _ = self.aliases.pop(alias, ("", ""))
        self._aliases_of.get(room_id, set()).discard(alias)

    def aliases_of(self, room_id: str) -> list[str]:
        """The aliases that point at a room now."""
        return list(self._aliases_of.get(room_id, ()))

    @recorded
    def publish(self, name: str, room_id: str, listed: bool) -> None:
        """Put a room on a list of published rooms, or take it off."""
        rooms = self.lists[name]
        if listed and room_id not in rooms:
            rooms.append(room_id)
        if not listed and room_id in rooms:
            rooms.remove(room_id)

    # Its own life

    @recorded
    def note_start(self) -> None:
        """The homeserver runs: from now on its end is a crash unless it says otherwise."""
        self.stopped_in_order = False

    @recorded
    def note_stop(self) -> None:
        """The homeserver stops in order."""
        self.stopped_in_order = True

    # Queues

    @recorded
    def enqueue(self, appservice: str, kind: str, item: JsonObject) -> None:
        """Put something at the end of an appservice's queue."""
        self.queues[appservice].waiting.append((kind, item))

    @recorded
    def begin_transaction(self, appservice: str, txn_id: str, body: JsonObject, count: int) -> None:
        """Make the first `count` items of an appservice's queue its pending transaction."""
        queue = self.queues[appservice]
        del queue.waiting[:count]
        queue.pending = (txn_id, body)
        self.transactions[appservice] += 1

    @recorded
    def set_queue(self, appservice: str, waiting: list[tuple[str, JsonObject]], pending: list[Any] | None) -> None:
        """Replace the queue of an appservice: only a homeserver with a defect does that."""
        self.queues[appservice] = Queue([(kind, item) for kind, item in waiting], tuple(pending) if pending else None)

    @recorded
    def end_transaction(self, appservice: str) -> None:
        """The pending transaction of an appservice has been acknowledged."""
        self.queues[appservice].pending = None
