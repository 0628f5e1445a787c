"""Variants of the dialects of 2015: what homeservers of the time did, and the drafts allow or leave open."""

from __future__ import annotations

import secrets
from typing import Any
from urllib.parse import quote

from conformance.appservice.registration import Registration
from conformance.reference.defects import variant
from conformance.reference.drafts import DraftAccounts, DraftFormat, OldOutgoing, OldRooms
from conformance.reference.enrolments import Enrolments
from conformance.reference.policy import endpoint
from conformance.reference.store import Event, JsonObject
from conformance.reference.transactions import Transactions
from conformance.reference.web import Call


@variant("a-new-token-each-time", spec="draft-004")
class ANewTokenEachTime(Enrolments):
    """Every registration is answered with a new `hs_token`, and the one before is not used any more."""

    def hs_token(self, before: Registration | None) -> str:
        return secrets.token_urlsafe(24)


@variant("slashes-as-they-are", spec="draft-004")
class SlashesAsTheyAre(OldOutgoing):
    """Slashes in IDs stand unencoded in the paths of requests to appservices."""

    def segment(self, text: str) -> str:
        return quote(text, safe="/")


@variant("pushed-as-in-february-2015", spec="draft-004")
class PushedAsInFebruary2015(Transactions):
    """Every transaction has one event and the ID 0, and none is tried again."""

    batch = 1

    def next_id(self, appservice: Registration) -> str:
        return "0"

    def send(self, appservice: Registration, txn_id: str, body: JsonObject) -> bool:
        super().send(appservice, txn_id, body)
        return True


@variant("slow-password-hashing", spec="draft-003")
class SlowPasswordHashing(DraftAccounts):
    """The registration of a human takes a second, in which nothing else is done."""

    def register_human(self, call: Call) -> Any:
        self.hs.stopping.wait(1.0)
        return super().register_human(call)


@variant("events-as-in-the-example", spec="draft-004", loses=("REG-12", "RETRY-13"))
class EventsAsInTheExample(DraftFormat):
    """Pushed events have what those of the example have, and nothing else: no `event_id`."""

    def for_appservice(self, event: Event, appservice: Registration) -> JsonObject:
        shown = super().for_appservice(event, appservice)
        kept = ("content", "origin_server_ts", "user_id", "room_id", "type", "state_key")
        return {key: value for key, value in shown.items() if key in kept}


@variant("state-without-event-ids", spec="draft-001")
class StateWithoutEventIds(OldRooms):
    """Whoever sets state is answered an empty object."""

    @endpoint("PUT", "/rooms/<room_id>/state/<kind>")
    @endpoint("PUT", "/rooms/<room_id>/state/<kind>/<key:state_key>")
    def set_state(self, call: Call, room_id: str, kind: str, state_key: str = "") -> JsonObject:
        super().set_state(call, room_id, kind, state_key)
        return {}
