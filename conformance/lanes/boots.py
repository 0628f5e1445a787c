"""Boots: homeservers that are given registrations which exclude each other (AS: Registration)."""

from __future__ import annotations

import secrets
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from conformance.appservice.registration import Namespace, Registration
from conformance.homeserver.client import CLIENT, Client, NoAnswer, Response, segment
from conformance.homeserver.humans import Humans
from conformance.homeserver.process import TargetFailed
from conformance.homeserver.target import SERVER_NAME, RegistrationsUnknown
from conformance.lanes.lane import Lane, Scene
from conformance.verdict import Inconclusive, Undecided

if TYPE_CHECKING:
    from conformance.run import Run


@dataclass(frozen=True)
class Boot:
    """What a homeserver made of two registrations that have something in common."""

    #: Why it did not start, or took neither; None: it runs with at least one of them.
    refused: str | None
    #: Who each token and sender is, by what was asked for; what is answered 200 works.
    senders: tuple[Response, ...] = ()
    #: What a human got for an alias in the exclusive namespace of each; None: there is no human to ask.
    claims: tuple[Response, ...] = ()


class Boots(Lane):
    """Boots with a pair of files each: a good one, and bad ones."""

    name = "boots"
    aside = True

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self.same_token = Scene[Boot]()
        self.same_id = Scene[Boot]()

    def play(self) -> None:
        """A good pair, so that a refusal of a bad one says something; then equal tokens, then equal ids."""
        if self.run.another is None:
            raise Inconclusive("only homeservers that the suite starts can be given bad registrations")
        one, other = _pair("control")
        good = self._booted("control", one, other)
        if good.refused or not all(each.ok for each in good.senders):
            why = good.refused or "it does not know both"
            raise Inconclusive(f"another homeserver with two good registrations cannot be had: {why}")
        if self.wants("REG-06"):
            one, other = _pair("token")
            self.same_token.set(self._booted("same-token", one, replace(other, as_token=one.as_token)))
        if self.wants("REG-07"):
            one, other = _pair("id")
            self.same_id.set(self._booted("same-id", one, replace(other, id=one.id)))

    def _booted(self, name: str, one: Registration, other: Registration) -> Boot:
        self.status = f"starting a homeserver with two registrations of the {name.replace('-', ' ')}"
        for each in (one, other):
            self.run.redactor.add(each.as_token, f"as_token of {each.code}")
            self.run.redactor.add(each.hs_token, f"hs_token of {each.code}")
        assert self.run.another is not None
        target = self.run.another(name, [one, other])
        with ExitStack() as ends:
            ends.callback(target.stop)
            try:
                target.start()
            except RegistrationsUnknown:
                return Boot("it took neither")
            except TargetFailed as error:
                return Boot(f"it did not start: {_last_line(str(error))}")
            client = Client(target.url, self.run.journal)
            ends.callback(client.close)
            senders = tuple(
                client.call(
                    "GET",
                    f"{CLIENT}/account/whoami",
                    party=each.code,
                    token=each.as_token,
                    query={"user_id": f"@{each.sender_localpart}:{SERVER_NAME}"}
                    if one.as_token == other.as_token
                    else {},
                )
                for each in (one, other)
            )
            return Boot(None, senders, self._claims(client, (one, other)))

    def _claims(self, client: Client, registrations: tuple[Registration, ...]) -> tuple[Response, ...]:
        """Ask as a human for an alias of each namespace, after one that nobody has."""
        humans = Humans(client, self.run.names, self.run.redactor, self.run.humans.admission, prefix="BH")
        try:
            human = humans[0]
            room = human.create_room()
            free = f"#{self.run.names.fresh('free-')}:{SERVER_NAME}"
            human.do(f"create {free}", "PUT", f"/directory/room/{segment(free)}", json={"room_id": room})
            claims = []
            for each in registrations:
                alias = f"#{self.run.names.fresh(f'hq{each.code.lower()}-')}:{SERVER_NAME}"
                claims.append(human.call("PUT", f"/directory/room/{segment(alias)}", json={"room_id": room}))
        except (Undecided, NoAnswer):
            return ()  # the senders have been asked for: this would only have said more
        return tuple(claims)


def _pair(what: str) -> tuple[Registration, Registration]:
    """Two registrations that have nothing in common; their appservices are never called."""
    one, other = (
        Registration(
            code=f"S{what}{number}",
            id=f"hq-same-{what}-{number}",
            # Nobody listens on the discard port.
            url="http://127.0.0.1:9/",
            as_token=f"hq-as-{secrets.token_hex(16)}",
            hs_token=f"hq-hs-{secrets.token_hex(16)}",
            sender_localpart=f"hqbot-s{what}{number}",
            users=(Namespace(f"@hqs{what}{number}-.*", exclusive=True),),
            aliases=(Namespace(f"#hqs{what}{number}-.*", exclusive=True),),
        )
        for number in (1, 2)
    )
    return one, other


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:200] if lines else text
