"""The reference homeserver, put together."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterable, Sequence
from email.utils import formatdate
from pathlib import Path
from typing import TypeVar

from conformance.appservice.registration import BadRegistration, Registration
from conformance.dialects import MODERN, Dialect
from conformance.reference import drafts, web
from conformance.reference.accounts import BY_TOKEN, Accounts, Interaction, Profiles
from conformance.reference.conventions import IdConventions
from conformance.reference.devices import Devices, Keys
from conformance.reference.directory import Aliases, RoomLists
from conformance.reference.enrolments import Enrolments
from conformance.reference.ephemeral import Ephemeral
from conformance.reference.events import ClientTransactions, Format, Timestamps
from conformance.reference.identity import Identity
from conformance.reference.interest import Interest
from conformance.reference.limits import Limits
from conformance.reference.namespaces import Namespaces
from conformance.reference.outgoing import Outgoing
from conformance.reference.ping import Ping
from conformance.reference.policy import Policy
from conformance.reference.provisioning import Provisioning
from conformance.reference.queries import Queries
from conformance.reference.rooms import Powers, Rooms
from conformance.reference.server import Media, Server
from conformance.reference.store import Event, Store
from conformance.reference.sync import Sync
from conformance.reference.thirdparty import ThirdParty
from conformance.reference.transactions import Backoff, Pusher, Queues, Restarted, Transactions

T = TypeVar("T", bound=Policy)


class Clock:
    """The time, and how much faster than a real homeserver this one waits."""

    def __init__(self, time_scale: float) -> None:
        self._scale = time_scale

    def scaled(self, seconds: float) -> float:
        """A homeserver's wait in seconds of this one."""
        return seconds * self._scale

    def now_ms(self) -> int:
        """Now, in milliseconds since 1970: time stamps are never scaled."""
        return int(time.time() * 1000)

    def http_date(self) -> str:
        """Now, as HTTP writes it."""
        return formatdate(usegmt=True)


class Registrations(Policy):
    """Which registration files are taken (AS: Registration)."""

    def loaded(self, given: Sequence[Registration]) -> list[Registration]:
        """All of them.

        :raises BadRegistration: an `id` or an `as_token` occurs twice: the homeserver must not start.
        """
        for what in ("id", "as_token"):
            values = [getattr(each, what) for each in given]
            if len(set(values)) < len(values):
                raise BadRegistration(f"two registrations have the same {what}")
        return list(given)


class Homeserver:
    """One homeserver: what it knows, the policies it goes by, its threads."""

    server_header = "as-conformance-reference/1.0"

    def __init__(
        self,
        registrations: Sequence[Registration],
        server_name: str,
        *,
        replaced: Iterable[type[Policy]] = (),
        registration_token: str | None = None,
        time_scale: float = 1.0,
        data: Path | None = None,
        dialect: Dialect = MODERN,
    ) -> None:
        """A homeserver that has not started yet.

        :param replaced: subclasses of policies that take their places: defects and variants.
        :param registration_token: what humans need to register; None: nothing.
        :param time_scale: factor of all waits.
        :param data: the file to keep everything in; None: nothing is kept.
        :param dialect: how it speaks. In those in which appservices register themselves, the tokens of `registrations`
            are what the administrator has stored.
        :raises BadRegistration: registrations that exclude each other.
        """
        self.server_name = server_name
        self.registration_token = registration_token
        self.registration_stages = [BY_TOKEN if registration_token else "m.login.dummy"]
        self.clock = Clock(time_scale)
        self.stopping = threading.Event()
        self.store = Store(data)
        self.lock = self.store.lock
        #: Notified of everything that a sync could show.
        self.news = threading.Condition(self.lock)
        self.dialect = dialect
        self._replaced = (*replaced, *drafts.policies_of(dialect))
        self.policies: list[Policy] = []

        self.registrations = self._policy(Registrations)
        self.namespaces = self._policy(Namespaces)
        self.identity = self._policy(Identity)
        self.interaction = self._policy(Interaction)
        self.accounts = self._policy(Accounts)
        self.profiles = self._policy(Profiles)
        self.devices = self._policy(Devices)
        self.keys = self._policy(Keys)
        self.powers = self._policy(Powers)
        self.rooms = self._policy(Rooms)
        self.format = self._policy(Format)
        self.timestamps = self._policy(Timestamps)
        self.client_transactions = self._policy(ClientTransactions)
        self.sync = self._policy(Sync)
        self.ephemeral = self._policy(Ephemeral)
        self.aliases = self._policy(Aliases)
        self.room_lists = self._policy(RoomLists)
        self.limits = self._policy(Limits)
        self.interest = self._policy(Interest)
        self.transactions = self._policy(Transactions)
        self.backoff = self._policy(Backoff)
        self.queues = self._policy(Queues)
        self.restarted = self._policy(Restarted)
        self.outgoing = self._policy(Outgoing)
        self.queries = self._policy(Queries)
        self.third_party = self._policy(ThirdParty)
        self.ping = self._policy(Ping)
        self.server = self._policy(Server)
        self.media = self._policy(Media)
        self.paths = self._policy(web.Paths)
        self.enrolments, self.provisioning = self._policy(Enrolments), self._policy(Provisioning)
        self._policy(IdConventions)
        self.errors = self._policy(web.Errors)
        self.connections = self._policy(web.Connections)

        #: What the administrator has stored; appservices that register themselves have only their tokens there.
        self.stored = self.registrations.loaded(registrations)
        self.appservices = self.stored if dialect.admission is None else []
        self.pushers = {each.id: Pusher(self, each) for each in self.appservices if each.url is not None}
        self._web: web.Server | None = None

    def _policy(self, kind: type[T]) -> T:
        policy = self._chosen(kind)(self)
        self.policies.append(policy)
        return policy

    def _chosen(self, kind: type[T]) -> type[T]:
        """What replaces a policy: a defect, a dialect's version of it, or a defect of a dialect's version."""
        found = [each for each in self._replaced if issubclass(each, kind)]
        chosen = [each for each in found if not any(other is not each and issubclass(other, each) for other in found)]
        if len(chosen) < 2:
            return chosen[0] if chosen else kind
        return type("".join(each.__name__ for each in chosen), tuple(chosen), {})

    def add_appservice(self, appservice: Registration) -> None:
        """Take an appservice on while serving, or take a changed registration of one."""
        self.appservices = [each for each in self.appservices if each.id != appservice.id] + [appservice]
        pusher = self.pushers.get(appservice.id)
        if pusher is not None:
            pusher.appservice = appservice
        elif appservice.url is not None:
            self.pushers[appservice.id] = Pusher(self, appservice)
            self.pushers[appservice.id].start()

    def drop_appservice(self, appservice: Registration) -> None:
        """Let an appservice go: nothing is of interest to it any more."""
        self.appservices = [each for each in self.appservices if each.id != appservice.id]

    def start(self, host: str = "127.0.0.1", port: int = 0) -> str:
        """Serve and push; the base URL.

        :raises OSError: the port cannot be had.
        """
        for each in self.appservices:
            if self.user_id(each.sender_localpart) not in self.store.accounts:
                self.store.add_account(self.user_id(each.sender_localpart), each.id)
        self._web = web.serve(self, host, port)
        if self.store.stopped_in_order is not None:
            self.restarted.resume(self.store.stopped_in_order)
        self.store.note_start()
        for pusher in self.pushers.values():
            pusher.start()
        return f"http://{host}:{self._web.server_address[1]}"

    def stop(self) -> None:
        """Stop serving and pushing; what is on its way is left to itself."""
        self.stopping.set()
        for pusher in self.pushers.values():
            pusher.wake()
        with self.news:
            self.news.notify_all()
        if self._web is not None:
            self._web.shutdown()
            self._web.server_close()
            self._web = None
        with self.lock:
            self.store.note_stop()
            self.store.close()

    def told(self, event: Event) -> None:
        """An event has taken effect: tell appservices and clients."""
        self.queues.told(event)
        self.news.notify_all()

    def user_id(self, localpart: str) -> str:
        """The ID of a user here."""
        return f"@{localpart}:{self.server_name}"

    def is_local(self, identifier: str) -> bool:
        """Whether an ID is of this homeserver."""
        return identifier.partition(":")[2] == self.server_name

    @staticmethod
    def new_token() -> str:
        """A token for a homeserver's registration of humans."""
        return secrets.token_urlsafe(24)
