"""The fake appservices of a run: served on loopback, recorded, and spoken of in the checks by their codes."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from conformance.appservice import thirdparty
from conformance.appservice.endpoint import Endpoint, Listener
from conformance.appservice.registration import BadRegistration, Registration
from conformance.appservice.roster import ROLES
from conformance.appservice.routes import Kind, Route, route_of
from conformance.appservice.script import Reply, Script, answer
from conformance.dialects import BY_APPSERVICE, MODERN, Dialect
from conformance.homeserver.client import Client, Response
from conformance.homeserver.users import Names, User
from conformance.verdict import Broken, Inconclusive
from conformance.wire.exchange import Direction, Exchange, NotJson
from conformance.wire.journal import Journal

#: While a run lasts, threads change places ten times as often as CPython's default, so that answers of the fleet do
#: not wait 5 ms for a check that computes. Seconds.
SWITCH_INTERVAL = 0.0005

Event = dict[str, Any]


class Appservice:
    """One fake appservice: what it received, what it answers, and what it does on the homeserver."""

    def __init__(
        self, registration: Registration, journal: Journal, deliver_wait: float, dialect: Dialect = MODERN
    ) -> None:
        #: In dialects in which it registers itself, the `hs_token` is the one it got last.
        self.registration = registration
        self.code = registration.code
        self.journal = journal
        #: Seconds that an event may take to arrive.
        self.deliver_wait = deliver_wait
        self.dialect = dialect
        self.listener: Listener | None = None
        self._scripts: dict[tuple[Kind, str | None], Script] = {}
        self._scripts_lock = threading.Lock()
        self._routes: dict[int, Route] = {}
        self._events: dict[int, dict[str, Event]] = {}
        self._sender: User | None = None

    def __str__(self) -> str:
        return f"appservice {self.code} ({self.registration.id})"

    # What it answers

    def respond(self, exchange: Exchange) -> Reply:
        """The reply to a request: the script for its subject, else for its kind, else the well-behaved default."""
        route = self.route(exchange)
        with self._scripts_lock:
            script = self._scripts.get((route.kind, route.subject)) or self._scripts.get((route.kind, None))
        return script(exchange) if script is not None else self._default(route, exchange)

    def _default(self, route: Route, exchange: Exchange) -> Reply:
        if route.kind is Kind.UNKNOWN:
            self.journal.update(exchange, notes=(*exchange.notes, "no script expects this request"))
            return thirdparty.unrecognized()
        if self.code == "L" and not route.legacy:
            return thirdparty.unrecognized()
        if route.kind in (Kind.TRANSACTION, Kind.PING):
            return answer()
        if route.kind in (Kind.USER, Kind.ALIAS):
            return answer(404, {"errcode": "HQ.CONFORMANCE.NOT_FOUND", "error": "no such entity"})
        return thirdparty.reply(self.code, route, exchange)

    @contextmanager
    def scripted(self, kind: Kind, script: Script, subject: str | None = None) -> Iterator[None]:
        """Answer requests of a kind (about one subject: a user ID, an alias, a protocol) by `script` meanwhile."""
        key = (kind, subject)
        with self._scripts_lock:
            if key in self._scripts:
                raise ValueError(f"{self} already has a script for {kind} {subject or ''}")
            self._scripts[key] = script
        try:
            yield
        finally:
            with self._scripts_lock:
                del self._scripts[key]

    # What it received

    def route(self, exchange: Exchange) -> Route:
        """What a request to this appservice asks."""
        known = self._routes.get(exchange.number)
        if known is None:
            known = route_of(exchange, self.registration.base_path, self.dialect.table)
            self._routes[exchange.number] = known
        return known

    def requests(self, kind: Kind | None = None, since: int = 0, subject: str | None = None) -> list[Exchange]:
        """The requests that arrived since a marker, optionally of one kind and about one subject."""
        return self.journal.since(since, lambda exchange: self._asks(exchange, kind, subject), self.code)

    def await_request(
        self, kind: Kind, since: int, subject: str | None = None, timeout: float | None = None
    ) -> Exchange | None:
        """The first such request that is complete, waiting for it; None when none came in time."""
        wait = self.deliver_wait if timeout is None else timeout
        return self.journal.wait_for(
            lambda exchange: exchange.received is not None and self._asks(exchange, kind, subject),
            since,
            wait,
            self.code,
        )

    def await_query(self, user_ids: Container[str], since: int, timeout: float) -> Exchange | None:
        """The first user query about any of several users, waiting `timeout` seconds for it."""
        return self.journal.wait_for(
            lambda exchange: self._asks(exchange, Kind.USER, None) and self.route(exchange).subject in user_ids,
            since,
            timeout,
            self.code,
        )

    def _asks(self, exchange: Exchange, kind: Kind | None, subject: str | None) -> bool:
        """Whether a request to this appservice is of a kind and about a subject."""
        if kind is None:
            return True
        route = self.route(exchange)
        return route.kind is kind and subject in (None, route.subject)

    def is_push(self, exchange: Exchange) -> bool:
        """Whether an exchange is an attempt to push a transaction to this appservice."""
        to_it = exchange.direction is Direction.TO_APPSERVICE and exchange.party == self.code
        return to_it and self._asks(exchange, Kind.TRANSACTION, None)

    def transactions(self, since: int = 0) -> list[Exchange]:
        """The transactions that arrived complete since a marker, retries among them."""
        return [exchange for exchange in self.requests(Kind.TRANSACTION, since) if exchange.received is not None]

    def deliveries(self, event_id: str, since: int = 0) -> list[tuple[Exchange, Event]]:
        """Every transaction that contains an event, with the event as it stands there."""
        return [
            (exchange, event)
            for exchange in self.transactions(since)
            if self._event_in(exchange, event_id) is not None
            for event in events_of(exchange)
            if self._is_event(event, event_id)
        ]

    def received(self, since: int = 0) -> list[tuple[Exchange, Event]]:
        """Every event of every transaction since a marker, in order of arrival; a repeated txnId counts once."""
        seen: set[str] = set()
        found = []
        for exchange in self.transactions(since):
            txn_id = self.route(exchange).subject
            if txn_id not in seen or not self.dialect.distinct_ids:
                seen.add(txn_id)
                found += [(exchange, event) for event in events_of(exchange)]
        return found

    def ephemeral(self, since: int = 0) -> list[tuple[Exchange, Event]]:
        """Every item of every `ephemeral` since a marker; a repeated transaction counts again."""
        return [(exchange, item) for exchange in self.transactions(since) for item in ephemeral_of(exchange)]

    def await_ephemeral(self, wanted: Callable[[Event], bool], since: int) -> tuple[Exchange, Event] | None:
        """The first ephemeral item since a marker that is wanted, waiting for it; None when none came in time."""

        def look(changed: Iterable[Exchange]) -> tuple[Exchange, Event] | None:
            for exchange in changed:
                if exchange.received is not None and self._asks(exchange, Kind.TRANSACTION, None):
                    for item in ephemeral_of(exchange):
                        if wanted(item):
                            return exchange, item
            return None

        return self.journal.wait_until(look, since, self.deliver_wait, self.code)

    def _wait_for_event(self, event_id: str) -> tuple[Exchange, Event] | None:
        def contains(changed: Any) -> tuple[Exchange, Event] | None:
            for exchange in changed:
                if exchange.received is not None and self._asks(exchange, Kind.TRANSACTION, None):
                    event = self._event_in(exchange, event_id)
                    if event is not None:
                        return exchange, event
            return None

        return self.journal.wait_until(contains, 0, self.deliver_wait, self.code)

    def _event_in(self, exchange: Exchange, event_id: str) -> Event | None:
        """The event of that ID in a complete transaction, the first if it is there twice."""
        known = self._events.get(exchange.number)
        if known is None:
            known = {str(event.get("event_id")): event for event in reversed(events_of(exchange))}
            self._events[exchange.number] = known
        if event_id in known or self.dialect.event_ids:
            return known.get(event_id)
        return next((event for event in events_of(exchange) if self._is_event(event, event_id)), None)

    def _is_event(self, event: Event, event_id: str) -> bool:
        if "event_id" in event or self.dialect.event_ids:
            return event.get("event_id") == event_id
        return bool(event.get("content") == self._sent(event_id))

    def _sent(self, event_id: str) -> Any:
        """The content with which an event was sent; no message of the suite has the text of another."""
        calls = self.journal.since(
            0, lambda e: e.direction is Direction.TO_HOMESERVER and event_id.encode() in e.response_body
        )
        return calls[0].request_json if calls and calls[0].request_body else None

    def await_event(self, event_id: str) -> Event:
        """An event that is set-up or control: as it was pushed, waiting for it.

        :raises Inconclusive: it did not arrive in time.
        """
        found = self._wait_for_event(event_id)
        if found is None:
            raise Inconclusive(f"{event_id} did not reach {self} within {self.deliver_wait:g} s: no positive control")
        return found[1]

    def still_missing(self, event_ids: Iterable[str], since: int) -> set[str]:
        """Which of many events have not arrived; waits on as long as one of them arrives within `deliver_wait`."""
        missing = set(event_ids)
        before = -1
        while missing and len(missing) != before:
            before = len(missing)
            self._await_all(missing, since)
        return missing

    def _await_all(self, missing: set[str], since: int) -> None:
        def strike_off(changed: Iterable[Exchange]) -> bool | None:
            for exchange in changed:
                if exchange.received is not None and self._asks(exchange, Kind.TRANSACTION, None):
                    missing.difference_update(str(event.get("event_id")) for event in events_of(exchange))
            return None if missing else True

        self.journal.wait_until(strike_off, since, self.deliver_wait, self.code)

    def must_receive(self, event_id: str, what: str) -> Event:
        """An event whose delivery is being judged: as it was pushed, waiting for it.

        :param what: the event in words, for the message ("the invite of a ghost").
        :raises Broken: it did not arrive in time.
        """
        found = self._wait_for_event(event_id)
        if found is None:
            raise Broken(
                f"{what} ({event_id}) in a transaction of {self} within {self.deliver_wait:g} s",
                "no transaction with it",
                *self.journal.since(0, lambda e: event_id.encode() in e.response_body)[:1],
            )
        return found[1]

    def must_not_receive(self, event_id: str, what: str) -> None:
        """An event that must not have been pushed by now; only after a marker and the quiet window.

        :raises Broken: it was.
        """
        for exchange, _ in self.deliveries(event_id):
            raise Broken(f"{what} ({event_id}) not pushed to {self}", "it was pushed", exchange)

    def must_receive_nothing_of(self, room: str, what: str) -> None:
        """No event of a room may have been pushed by now; only after a marker and the quiet window.

        :raises Broken: one was.
        :raises Inconclusive: events come without the room they are of.
        """
        for exchange, event in self.received():
            if "room_id" not in event:
                raise Inconclusive("events are pushed without a room_id (TXN-04): their room is not known", exchange)
            if event["room_id"] == room:
                raise Broken(
                    f"nothing of {what} ({room}) pushed to {self}", f"{event.get('type')} was pushed", exchange
                )

    def must_not_be_asked(self, kind: Kind, since: int, what: str, subject: str | None = None) -> None:
        """A request that must not have arrived since a marker of the journal; only after a marker and the quiet window.

        :raises Broken: it did.
        """
        for exchange in self.requests(kind, since, subject):
            raise Broken(f"no {kind} at {self} for {what}", f"{exchange.method} {exchange.target}", exchange)

    def exchange_with(self, event_id: str) -> Exchange:
        """The first transaction that contains an event, waiting for it.

        :raises Inconclusive: it did not arrive in time.
        """
        self.await_event(event_id)
        return self.deliveries(event_id)[0][0]

    # What it does on the homeserver

    def enroll(self, body: Mapping[str, Any] | None = None) -> Response:
        """Register itself over HTTP (drafts: Registration), with another body than its own if one is given.

        A `hs_token` in the answer is its token from now on. Whatever the homeserver answers is returned.
        """
        admission = self.dialect.admission
        assert admission is not None, f"{self.dialect.name} has no HTTP registration"
        content = admission.body(self.registration) if body is None else body
        answer = self.sender.client.call("POST", f"{admission.base}/register", party=self.code, json=content)
        token = answer.json.get("hs_token")
        if answer.ok and isinstance(token, str) and token:
            self.registration = replace(self.registration, hs_token=token)
        return answer

    def leave(self) -> Response:
        """Unregister itself over HTTP (drafts: Unregister); whatever the homeserver answers."""
        path = self.dialect.admin_path("unregister")
        body = {"as_token": self.registration.as_token}
        return self.sender.client.call("POST", path, party=self.code, json=body)

    def connect(self, client: Client, names: Names, server_name: str) -> None:
        """Say which homeserver its users act on."""
        sender = f"@{self.registration.sender_localpart}:{server_name}"
        self._sender = User(client, names, self.code, self.registration.as_token, sender)

    @property
    def sender(self) -> User:
        """Its sender user: the `as_token` alone."""
        if self._sender is None:
            raise ValueError(f"{self} is not connected to a homeserver")
        return self._sender

    @property
    def prefix(self) -> str:
        """What the localparts of its own ghosts begin with."""
        return f"hq{self.code.lower()}-"

    def fresh_localpart(self, prefix: str | None = None) -> str:
        """A localpart that nobody has used, in its exclusive namespace unless `prefix` says otherwise."""
        return self.sender.names.fresh(self.prefix if prefix is None else prefix)

    def as_user(self, user_id: str) -> User:
        """Somebody it asserts the identity of, registered or not."""
        sender = self.sender
        return User(sender.client, sender.names, f"{self.code} as {user_id}", sender.token, user_id, asserted=True)

    def unregistered(self, prefix: str | None = None) -> User:
        """A ghost of its namespace that the homeserver does not know yet."""
        return self.as_user(f"@{self.fresh_localpart(prefix)}:{self.sender.server_name}")

    def register(self, localpart: str, **content: Any) -> Response:
        """Register a ghost by `as_token` (AS: Server admin style permissions); whatever the homeserver answers."""
        body = self.dialect.ghost(localpart) | content
        return self.sender.call("POST", "/register", json=body)

    def ghost(self, prefix: str | None = None) -> User:
        """A fresh ghost, registered.

        :raises Inconclusive: the homeserver did not register it.
        """
        ghost = self.unregistered(prefix)
        body = self.dialect.ghost(ghost.localpart)
        self.sender.do(f"register the ghost {ghost}", "POST", "/register", json=body)
        return ghost

    def log_in(self, ghost: User) -> User:
        """A ghost with an access token of its own, by way of `/login`.

        :raises Inconclusive: the homeserver did not log it in.
        """
        body = self.dialect.login(BY_APPSERVICE, ghost.localpart)
        answer = self.sender.do(f"log in as {ghost}", "POST", "/login", json=body)
        token = answer.json.get("access_token")
        if not isinstance(token, str):
            raise Inconclusive(f"set-up: the login as {ghost} yielded no access token", answer.exchange)
        return User(ghost.client, ghost.names, f"{ghost.user_id} logged in", token, ghost.user_id)


class Fleet:
    """All appservices of a run, by code, on listeners of their own."""

    def __init__(
        self,
        registrations: list[Registration],
        journal: Journal,
        bind: str = "127.0.0.1",
        deliver_wait: float = 30.0,
        dialect: Dialect = MODERN,
    ) -> None:
        self._endpoint = Endpoint(journal)
        #: The address it listens on.
        self.bind = bind
        self._dead: list[socket.socket] = []
        self._switch_interval = sys.getswitchinterval()
        self._members = {each.code: Appservice(each, journal, deliver_wait, dialect) for each in registrations}

    def __getitem__(self, code: str) -> Appservice:
        """An appservice by its code.

        :raises Inconclusive: there is no registration for it in this run.
        """
        try:
            return self._members[code]
        except KeyError:
            role = ROLES.get(code)
            name = f"{role.id!r} " if role else ""
            raise Inconclusive(f"the registration {name}of appservice {code} is not among the files given") from None

    def __iter__(self) -> Iterator[Appservice]:
        return iter(self._members.values())

    def __contains__(self, code: object) -> bool:
        return code in self._members

    @property
    def notes(self) -> list[str]:
        """What the results should say about the fleet's clock."""
        return [] if self._endpoint.kernel_stamps else [self._endpoint.stamp_note]

    def start(self) -> None:
        """Listen on every port named in the registrations.

        :raises BadRegistration: a port cannot be had.
        """
        self._endpoint.start()
        sys.setswitchinterval(SWITCH_INTERVAL)
        for member in self:
            port = member.registration.port
            if port is None:
                if member.registration.url is not None:
                    raise BadRegistration(f"the url of registration {member.registration.id!r} names no port")
                continue
            try:
                role = ROLES[member.code]
                if role.listens:
                    for host in addresses(role.host.strip("[]")) if role.host else (self.bind,):
                        member.listener = self._endpoint.listen(member.code, host, port, member.respond)
                else:
                    self._keep_dead(port)
            except OSError as error:
                raise BadRegistration(
                    f"port {port} of registration {member.registration.id!r} cannot be listened on at {self.bind}: "
                    f"{error.strerror or error}; end what uses it, or write the registrations for other ports"
                ) from error

    def _keep_dead(self, port: int) -> None:
        # Bound and never listening: connections are refused and nobody else can take the port. The port's earlier
        # connections (an earlier run, minutes ago) must not keep us from it, as they do not keep the listeners.
        family, kind, protocol, _, address = socket.getaddrinfo(self.bind, port, type=socket.SOCK_STREAM)[0]
        dead = socket.socket(family, kind, protocol)
        self._dead.append(dead)
        dead.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        dead.bind(address)
        dead.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)

    def connect(self, client: Client, names: Names, server_name: str) -> None:
        """Say which homeserver the fleet's users act on."""
        for member in self:
            member.connect(client, names, server_name)

    def stop(self) -> None:
        """Close everything; held answers are cut."""
        self._endpoint.stop()
        for dead in self._dead:
            dead.close()
        self._dead.clear()
        sys.setswitchinterval(self._switch_interval)


def addresses(host: str) -> list[str]:
    """All addresses of a host, as a homeserver may choose any of them.

    :raises OSError: it has none.
    """
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def listen(
    enlist: Callable[[], list[Registration]], made: Callable[[list[Registration]], Fleet], tries: int = 5
) -> tuple[list[Registration], Fleet]:
    """A fleet that listens, and its registrations. A port that was free may be taken by somebody else a moment later.

    :param enlist: makes the registrations, with other ports each time.
    :param made: makes the fleet of them.
    :param tries: how often to choose ports.
    :raises BadRegistration: a port cannot be had.
    """
    while True:
        registrations = enlist()
        fleet = made(registrations)
        try:
            fleet.start()
        except BadRegistration:
            fleet.stop()
            tries -= 1
            if not tries:
                raise
            continue
        return registrations, fleet


def events_of(exchange: Exchange) -> list[Event]:
    """The events of a transaction; what is no list of objects counts as none (TXN-03 and TXN-04 judge the form)."""
    return _objects(exchange, "events")


def ephemeral_of(exchange: Exchange) -> list[Event]:
    """The ephemeral data of a transaction, as far as it has the form; see :func:`events_of`."""
    return _objects(exchange, "ephemeral")


def _objects(exchange: Exchange, key: str) -> list[Event]:
    try:
        body = exchange.request_json
    except NotJson:
        return []
    found = body.get(key) if isinstance(body, dict) else None
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []
