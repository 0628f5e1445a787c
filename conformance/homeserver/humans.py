"""Ordinary users, however the homeserver lets them in."""

from __future__ import annotations

import hashlib
import hmac
import itertools
import secrets
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from conformance.dialects import BY_PASSWORD
from conformance.homeserver.client import CLIENT, Client, NoAnswer, Response
from conformance.homeserver.signup import Signup
from conformance.homeserver.users import Names, User
from conformance.verdict import Inconclusive
from conformance.wire.redaction import Redactor


@dataclass(frozen=True)
class Admission:
    """What the user gave for servers without open registration."""

    #: `--hs-user`: user (localpart or ID) and password.
    logins: tuple[tuple[str, str], ...] = ()
    #: `--hs-user-token`
    tokens: tuple[str, ...] = ()
    #: `--hs-registration-shared-secret` (Synapse's admin API)
    shared_secret: str | None = None
    #: `--hs-registration-token` (`m.login.registration_token`)
    registration_token: str | None = None


@dataclass
class Humans:
    """The ordinary users of a run, made when first asked for, each once: rate limits on registration are tight."""

    client: Client
    names: Names
    redactor: Redactor
    admission: Admission = field(default_factory=Admission)
    #: What their names in the journal begin with.
    prefix: str = "H"
    #: The index of the first for lanes only: H1, H2 and H3 have parts of their own in checks, H4 and H5 stand in.
    reserved: int = 6
    _turns: Iterator[int] = field(default_factory=lambda: itertools.cycle((0, 4, 5)))
    #: Lanes ask for users too.
    _making: threading.Lock = field(default_factory=threading.Lock)
    _made: list[User] = field(default_factory=list)
    _failure: Inconclusive | None = None

    def __post_init__(self) -> None:
        self._others: Iterator[int] = itertools.count(self.reserved)
        self.signup = Signup(self.client, self.names, self.redactor, self.admission.registration_token)

    def __getitem__(self, index: int) -> User:
        """The human of that index (0 is H).

        :raises Inconclusive: there is no way to have so many; for the same reason whenever one more is asked for.
        """
        with self._making:
            while len(self._made) <= index:
                if self._failure is not None:
                    raise Inconclusive(self._failure.reason, *self._failure.evidence)
                try:
                    self._made.append(self._make(len(self._made)))
                except NoAnswer as error:
                    raise Inconclusive(f"no ordinary user: {error}", error.exchange) from error
                except Inconclusive as error:
                    self._failure = error
                    raise
            return self._made[index]

    def on_duty(self) -> User:
        """H or one of two stand-ins, in turn: no single user should meet a limit on messages. H alone where there are
        no more users to be had.

        :raises Inconclusive: there is not even H.
        """
        index = next(self._turns)
        if index:
            with suppress(Inconclusive):
                return self[index]
        return self[0]

    def another(self) -> User:
        """A user whom nobody else gets, for a lane; somebody on duty where there are no more users to be had.

        :raises Inconclusive: there is not even H.
        """
        index = next(self._others)
        with suppress(Inconclusive):
            return self[index]
        return self.on_duty()

    @property
    def tokens(self) -> list[str]:
        """The access tokens of those made so far."""
        return [human.token for human in self._made]

    def _make(self, index: int) -> User:
        party = f"{self.prefix}{index or ''}"
        given = self.admission
        if index < len(given.logins):
            return self._log_in(party, *given.logins[index])
        if index - len(given.logins) < len(given.tokens):
            return self._by_token(party, given.tokens[index - len(given.logins)])
        if given.shared_secret:
            return self._by_shared_secret(party, given.shared_secret)
        return self._register(party)

    def registered(self, localpart: str) -> User:
        """A further human who registers itself under that localpart.

        :raises Inconclusive: the homeserver does not let it.
        """
        if self.admission.shared_secret:
            return self._by_shared_secret(localpart, self.admission.shared_secret, localpart)
        return self._register(localpart, localpart)

    def _register(self, party: str, localpart: str | None = None) -> User:
        """Open registration: a dummy stage, or one with a registration token (CS: Account registration)."""
        attempt = self.signup.first(localpart or self.names.fresh("human-"), party)
        return self._user(party, self.signup.finish(attempt, party), "register")

    def _by_shared_secret(self, party: str, secret: str, localpart: str | None = None) -> User:
        path = "/_synapse/admin/v1/register"
        nonce = str(self.client.call("GET", path, party=party).json.get("nonce", ""))
        name, password = localpart or self.names.fresh("human-"), self._password()
        mac = hmac.new(secret.encode(), digestmod=hashlib.sha1)
        mac.update(b"\0".join(part.encode() for part in (nonce, name, password, "notadmin")))
        body = {"nonce": nonce, "username": name, "password": password, "admin": False, "mac": mac.hexdigest()}
        return self._user(party, self.client.call("POST", path, party=party, json=body), "register by shared secret")

    def _log_in(self, party: str, user: str, password: str) -> User:
        self.redactor.add(password, f"password of {party}")
        body = self.client.dialect.login(BY_PASSWORD, user, password=password)
        return self._user(party, self._post("/login", body, party), f"log in as {user}")

    def _by_token(self, party: str, token: str) -> User:
        self.redactor.add(token, f"access token of {party}")
        answer = self.client.call("GET", f"{CLIENT}/account/whoami", party=party, token=token)
        user_id = answer.json.get("user_id")
        if not answer.ok or not isinstance(user_id, str):
            raise Inconclusive(f"a token given by --hs-user-token is not known: {answer}", answer.exchange)
        return User(self.client, self.names, party, token, user_id)

    def _user(self, party: str, answer: Response, what: str) -> User:
        token, user_id = answer.json.get("access_token"), answer.json.get("user_id")
        if not answer.ok or not isinstance(token, str) or not isinstance(user_id, str):
            raise Inconclusive(
                f"no ordinary user: could not {what}, answered {answer}: open registration on the homeserver, "
                "or give --hs-user, --hs-user-token, --hs-registration-token or --hs-registration-shared-secret",
                answer.exchange,
            )
        self.redactor.add(token, f"access token of {party}")
        return User(self.client, self.names, party, token, user_id)

    def _post(self, path: str, body: dict[str, Any], party: str) -> Response:
        return self.client.call("POST", CLIENT + path, party=party, json=body)

    def _password(self) -> str:
        password = secrets.token_urlsafe(18)
        self.redactor.add(password, "password")
        return password
