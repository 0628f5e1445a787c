"""Mutants of area TS."""

# mypy: disable-error-code="no-untyped-def, method-assign, assignment, no-untyped-call, attr-defined, arg-type"

from __future__ import annotations

import time
from typing import Any

from tests.mutants import mutant
from tests.mutants._tools import claim_newest


def _patch_ts(change: Any, send: bool = True, state: bool = True) -> None:
    """Change the ts of requests of appservices that send a message or a state event."""
    from synapse.rest.client.room import RoomSendEventRestServlet, RoomStateEventRestServlet

    def changed(request, *args):
        if b"ts" in request.args:
            request.args = dict(request.args)
            found = change(request.args[b"ts"][0], request, *args)
            request.args.pop(b"ts")
            if found is not None:
                request.args[b"ts"] = [found]

    if send:
        do = RoomSendEventRestServlet._do

        async def _do(self, request, requester, room_id, event_type, txn_id):
            if requester.app_service_id:
                changed(request, event_type)
            return await do(self, request, requester, room_id, event_type, txn_id)

        RoomSendEventRestServlet._do = _do
    if state:
        on_put = RoomStateEventRestServlet.on_PUT

        async def on_PUT(self, request, room_id, event_type, state_key, *args, **kwargs):
            changed(request, event_type)
            return await on_put(self, request, room_id, event_type, state_key, *args, **kwargs)

        RoomStateEventRestServlet.on_PUT = on_PUT


_PENDING: dict[str, int] = {}


def _obey(servlet: Any, method: str, whose: Any, take: bool = True) -> None:
    """Have a servlet obey ts where it should not: the next event of that user gets it."""
    original = getattr(servlet, method)

    async def obeying(self, request, *args, **kwargs):
        requester = await self.auth.get_user_by_req(request)
        request._requester = None  # it can be set only once
        user_id = requester.user.to_string()
        if b"ts" in request.args and whose(requester):
            _PENDING[user_id] = int(request.args[b"ts"][0])
        try:
            return await original(self, request, *args, **kwargs)
        finally:
            if take:
                _PENDING.pop(user_id, None)

    setattr(servlet, method, obeying)
    _take_pending()


def _take_pending() -> None:
    from synapse.handlers.message import EventCreationHandler

    original = EventCreationHandler.create_event

    async def create_event(self, requester, event_dict, *args, **kwargs):
        if event_dict["sender"] in _PENDING:
            event_dict = {**event_dict, "origin_server_ts": _PENDING[event_dict["sender"]]}
        return await original(self, requester, event_dict, *args, **kwargs)

    EventCreationHandler.create_event = create_event


@mutant("TS-01")
def ts_of_messages_is_rounded_to_seconds() -> None:
    """The ts of a message is rounded to whole seconds."""
    _patch_ts(lambda ts, request, event_type: ts[:-3] + b"000" if ts.isdigit() and len(ts) > 3 else ts, state=False)


@mutant("TS-01")
def ts_counts_for_known_types_only() -> None:
    """The ts of an event of a type of one's own is ignored."""
    _patch_ts(lambda ts, request, event_type: None if event_type == "net.hq.conformance" else ts, state=False)


@mutant("TS-01", "TS-02")
def ts_is_ignored() -> None:
    """The parameter ts is ignored."""
    _patch_ts(lambda ts, request, event_type: None)


@mutant("TS-02")
def ts_of_state_is_ignored() -> None:
    """The ts of state events is ignored."""
    _patch_ts(lambda ts, request, event_type: None, send=False)


@mutant("TS-02")
def ts_of_state_without_a_key_in_the_path_is_ignored() -> None:
    """The ts of state events is ignored when the path has no state key."""
    from synapse.rest.client.room import RoomStateEventRestServlet

    def on_put_no_state_key(self, request, room_id, event_type):
        request.args = {key: value for key, value in request.args.items() if key != b"ts"}
        return self.on_PUT(request, room_id, event_type, "")

    RoomStateEventRestServlet.on_PUT_no_state_key = on_put_no_state_key


@mutant("TS-02")
def ts_of_state_with_a_key_is_ignored() -> None:
    """The ts of state events is ignored when the state key is not empty, except for members."""
    from synapse.rest.client.room import RoomStateEventRestServlet

    original = RoomStateEventRestServlet.on_PUT

    async def on_PUT(self, request, room_id, event_type, state_key, *args, **kwargs):
        if state_key and event_type != "m.room.member":
            request.args = {key: value for key, value in request.args.items() if key != b"ts"}
        return await original(self, request, room_id, event_type, state_key, *args, **kwargs)

    RoomStateEventRestServlet.on_PUT = on_PUT


@mutant("TS-03")
def ts_sticks_to_the_user() -> None:
    """An event without ts gets the last ts of the same ghost."""
    from synapse.rest.client.room import RoomSendEventRestServlet

    original = RoomSendEventRestServlet._do
    last: dict[str, bytes] = {}

    async def _do(self, request, requester, *args, **kwargs):
        user_id = requester.user.to_string()
        if requester.app_service_id and b"ts" in request.args:
            last[user_id] = request.args[b"ts"][0]
        elif requester.app_service_id and user_id in last:
            request.args = {**request.args, b"ts": [last.pop(user_id)]}
        return await original(self, request, requester, *args, **kwargs)

    RoomSendEventRestServlet._do = _do


@mutant("TS-04")
def ts_may_be_any_number() -> None:
    """A ts of 1.5 or 1e3 is rounded."""

    def rounded(ts, *_):
        try:
            return str(int(float(ts))).encode() if len(ts) < 20 else ts
        except ValueError:
            return ts

    _patch_ts(rounded)


@mutant("TS-04")
def unreadable_ts_of_state_is_now() -> None:
    """A state event with a ts that is no integer is sent with the present time."""
    _patch_ts(lambda ts, *_: ts if ts.isdigit() else None, send=False)


@mutant("TS-04")
def huge_ts_breaks_the_server() -> None:
    """A ts that does not fit into 64 bits is answered with 500."""

    def check(ts, *_):
        if ts.isdigit() and int(ts) >= 2**63:
            raise OverflowError(ts)
        return ts

    _patch_ts(check)


@mutant("TS-05", "TS-13")
def everybody_may_set_the_time() -> None:
    """The parameter ts is obeyed for messages of everybody."""
    from synapse.rest.client.room import RoomSendEventRestServlet

    _obey(RoomSendEventRestServlet, "on_PUT", lambda requester: not requester.app_service_id)


@mutant("TS-05")
def humans_may_set_the_time_of_state() -> None:
    """The parameter ts is obeyed for state events of humans."""
    from synapse.rest.client.room import RoomStateEventRestServlet

    _obey(RoomStateEventRestServlet, "on_PUT_no_state_key", lambda requester: "human" in requester.user.to_string())


@mutant("TS-06")
def joins_obey_ts() -> None:
    """POST /join obeys ts."""
    from synapse.rest.client.room import JoinRoomAliasServlet

    _obey(JoinRoomAliasServlet, "on_POST", lambda requester: requester.app_service_id)


@mutant("TS-06")
def kicks_and_invites_obey_ts() -> None:
    """Membership changes below /rooms/{id} obey ts."""
    from synapse.rest.client.room import RoomMembershipRestServlet

    _obey(RoomMembershipRestServlet, "on_POST", lambda requester: requester.app_service_id)


@mutant("TS-06")
def redactions_obey_ts() -> None:
    """PUT /redact obeys ts."""
    from synapse.rest.client.room import RoomRedactEventRestServlet

    _obey(RoomRedactEventRestServlet, "on_PUT", lambda requester: requester.app_service_id)


@mutant("TS-06")
def created_rooms_obey_ts() -> None:
    """POST /createRoom obeys ts."""
    from synapse.rest.client.room import RoomCreateRestServlet

    _obey(RoomCreateRestServlet, "on_POST", lambda requester: requester.app_service_id)


@mutant("TS-06")
def display_names_obey_ts() -> None:
    """The membership event of a new display name obeys the ts of the request that set the name."""
    from synapse.rest.client.profile import ProfileFieldRestServlet

    _obey(ProfileFieldRestServlet, "on_PUT", lambda requester: requester.app_service_id, take=False)


@mutant("TS-07")
def ts_of_members_is_ignored() -> None:
    """The ts of membership events that are set as state is ignored."""
    _patch_ts(lambda ts, request, event_type: None if event_type == "m.room.member" else ts, send=False)


@mutant("TS-08")
def history_is_sorted_by_time() -> None:
    """/messages sorts its events by their time."""
    from synapse.rest.client.room import RoomMessageListRestServlet

    original = RoomMessageListRestServlet.on_GET

    async def on_GET(self, request, *args, **kwargs):
        status, body = await original(self, request, *args, **kwargs)
        body["chunk"].sort(key=lambda event: event["origin_server_ts"], reverse=request.args[b"dir"][0] == b"b")
        return status, body

    RoomMessageListRestServlet.on_GET = on_GET


@mutant("TS-08")
def sync_is_sorted_by_time() -> None:
    """/sync sorts the timeline by time."""
    from synapse.rest.client.sync import SyncRestServlet

    original = SyncRestServlet.on_GET

    async def on_GET(self, *args, **kwargs):
        status, body = await original(self, *args, **kwargs)
        for room in body.get("rooms", {}).get("join", {}).values():
            room["timeline"]["events"].sort(key=lambda event: event["origin_server_ts"])
        return status, body

    SyncRestServlet.on_GET = on_GET


@mutant("TS-09")
def pushes_tell_the_time_of_receipt() -> None:
    """Pushed events have the time at which they were received, not their own."""
    from synapse.appservice.api import ApplicationServiceApi

    original = ApplicationServiceApi._serialize

    async def _serialize(self, *args, **kwargs):
        now = int(time.time() * 1000)
        return [{**event, "origin_server_ts": now} for event in await original(self, *args, **kwargs)]

    ApplicationServiceApi._serialize = _serialize


@mutant("TS-09")
def old_events_are_not_pushed() -> None:
    """Events whose time is more than a day ago are not pushed."""
    from synapse.appservice.scheduler import ApplicationServiceScheduler

    original = ApplicationServiceScheduler.enqueue_for_appservice

    def enqueue_for_appservice(self, appservice, events=(), *args, **kwargs):
        recent = [event for event in events or () if event.origin_server_ts > (time.time() - 86400) * 1000]
        return original(self, appservice, recent, *args, **kwargs)

    ApplicationServiceScheduler.enqueue_for_appservice = enqueue_for_appservice


@mutant("TS-09")
def old_events_are_pushed_late() -> None:
    """Events whose time is long ago are pushed after those that come next."""
    from synapse.appservice.scheduler import ApplicationServiceScheduler

    original = ApplicationServiceScheduler.enqueue_for_appservice
    late: dict[str, list[Any]] = {}

    def enqueue_for_appservice(self, appservice, events=(), *args, **kwargs):
        events = list(events or ())
        old = [event for event in events if event.origin_server_ts < (time.time() - 86400) * 1000]
        rest = [event for event in events if event not in old]
        if events and rest:
            rest += late.pop(appservice.id, [])
        late.setdefault(appservice.id, []).extend(old)
        return original(self, appservice, rest, *args, **kwargs)

    ApplicationServiceScheduler.enqueue_for_appservice = enqueue_for_appservice


@mutant("TS-10")
def ts_needs_a_user_id() -> None:
    """Without user_id, ts is ignored."""
    _patch_ts(lambda ts, request, event_type: ts if b"user_id" in request.args else None)


@mutant("TS-11")
def ts_zero_is_no_ts() -> None:
    """A ts of 0 counts as absent."""
    _patch_ts(lambda ts, *_: None if ts == b"0" else ts)


@mutant("TS-12")
def ts_is_at_most_now() -> None:
    """A ts in the future is taken for the present."""
    _patch_ts(lambda ts, *_: None if ts.isdigit() and time.time() * 1000 < int(ts) < 10**15 else ts)


@mutant("TS-13")
def tokens_of_ghosts_set_the_time() -> None:
    """The parameter ts is obeyed for a ghost's own token."""
    from synapse.rest.client.room import RoomStateEventRestServlet

    _obey(
        RoomStateEventRestServlet,
        "on_PUT_no_state_key",
        lambda requester: not requester.app_service_id and "@hqa-" in requester.user.to_string(),
    )


@mutant("TS-14")
def ts_of_redactions_is_ignored() -> None:
    """The ts of a redaction sent by /send is ignored."""
    claim_newest()
    _patch_ts(lambda ts, request, event_type: None if event_type == "m.room.redaction" else ts, state=False)
