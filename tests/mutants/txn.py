"""Mutants of area TXN."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, method-assign, assignment"

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from itertools import count
from typing import Any

from tests.mutants import mutant
from tests.mutants._wire import events, requests


def _transactions(change) -> None:
    requests(lambda request: change(request) if "/transactions/" in request.uri else None)


def _bodies(change) -> None:
    """Change the parsed body of every transaction."""

    def rewrite(request):
        body = json.loads(request.data)
        request.data = json.dumps(change(body) or body).encode()

    _transactions(rewrite)


def _attribute(name, value):
    return lambda thing: setattr(thing, name, value(getattr(thing, name)) if callable(value) else value)


@mutant("TXN-01")
def transactions_are_posted() -> None:
    """Transactions are sent by POST."""
    _transactions(_attribute("method", "POST"))


@mutant("TXN-01")
def transactions_have_no_id() -> None:
    """Transactions are put to a path without an id."""
    _transactions(_attribute("uri", lambda uri: uri.rpartition("/")[0] + "/"))


@mutant("TXN-01")
def transactions_are_of_another_version() -> None:
    """Transactions are put to a path of a version that does not exist."""
    _transactions(_attribute("uri", lambda uri: uri.replace("/app/v1/", "/app/v2/")))


@mutant("TXN-02")
def transactions_are_plain_text() -> None:
    """Transactions are declared as text."""
    _transactions(lambda request: request.headers.setRawHeaders("Content-Type", ["text/plain; charset=utf-8"]))


@mutant("TXN-02")
def transactions_have_no_media_type() -> None:
    """The type of a transaction's body is not declared."""
    _transactions(lambda request: request.headers.removeHeader("Content-Type"))


@mutant("TXN-02")
def transactions_are_latin_1() -> None:
    """The body of a transaction is encoded in Latin-1 where it can be."""
    _transactions(_attribute("data", lambda data: data.decode().encode("latin-1", "xmlcharrefreplace")))


@mutant("TXN-03")
def ephemeral_transactions_have_no_events() -> None:
    """Transactions for ephemeral data only have no events key."""

    def drop(body):
        if not body["events"]:
            del body["events"]

    _bodies(drop)


@mutant("TXN-03")
def ephemeral_transactions_have_null_events() -> None:
    """In transactions for ephemeral data only, events is null."""

    def blank(body):
        body["events"] = body["events"] or None

    _bodies(blank)


@mutant("TXN-04")
def events_have_no_room_id() -> None:
    """Pushed events have no room_id, as in /sync."""
    events(lambda event, pushed: pushed.pop("room_id"))


@mutant("TXN-04")
def state_events_have_a_time_as_text() -> None:
    """The origin_server_ts of pushed state events is a string."""

    def change(event, pushed):
        if event.is_state():
            pushed["origin_server_ts"] = str(pushed["origin_server_ts"])

    events(change)


@mutant("TXN-04")
def redactions_have_no_content() -> None:
    """Pushed redactions have no content."""

    def change(event, pushed):
        if event.type == "m.room.redaction":
            del pushed["content"]

    events(change)


@mutant("TXN-05")
def messages_have_a_null_state_key() -> None:
    """Pushed message events have a state_key of null."""
    events(lambda event, pushed: pushed.setdefault("state_key", None))


@mutant("TXN-05")
def empty_state_keys_are_dropped() -> None:
    """An empty state_key is left out."""
    events(lambda event, pushed: pushed.pop("state_key") if pushed.get("state_key") == "" else None)


@mutant("TXN-05")
def redactions_have_a_state_key() -> None:
    """Pushed redactions have an empty state_key."""
    events(lambda event, pushed: pushed.update(state_key="") if event.type == "m.room.redaction" else None)


def _values(change) -> None:
    """Change the values in the content of every pushed event, however deep."""

    def walk(value):
        if isinstance(value, Mapping):
            return {key: walk(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [walk(item) for item in value]
        return change(value)

    events(lambda event, pushed: pushed.update(content=walk(pushed["content"])))


@mutant("TXN-06")
def integers_are_rounded() -> None:
    """Integers in the content lose their last digits, as 32-bit floating point numbers do."""
    _values(lambda value: value & ~0xFF if isinstance(value, int) and value > 2**52 else value)


@mutant("TXN-06")
def integers_are_text() -> None:
    """Large integers in the content become strings."""
    _values(lambda value: str(value) if isinstance(value, int) and value > 2**31 else value)


@mutant("TXN-06")
def booleans_are_numbers() -> None:
    """Booleans in the content become numbers."""
    _values(lambda value: int(value) if isinstance(value, bool) else value)


@mutant("TXN-06")
def long_texts_are_cut() -> None:
    """Texts in the content are cut after a kilobyte."""
    _values(lambda value: value[:1024] if isinstance(value, str) else value)


@mutant("TXN-06")
def characters_beyond_the_first_plane_are_lost() -> None:
    """Emoji in the content become question marks."""
    _values(lambda value: "".join("?" if ord(each) > 0xFFFF else each for each in value)
            if isinstance(value, str) else value)  # fmt: skip


@mutant("TXN-06")
def blanks_are_trimmed() -> None:
    """Blanks at the ends of texts in the content are trimmed."""
    _values(lambda value: value.strip() if isinstance(value, str) else value)


@mutant("TXN-06")
def nulls_are_dropped() -> None:
    """Keys and items of value null are left out of the content."""

    def walk(value):
        if isinstance(value, Mapping):
            return {key: walk(item) for key, item in value.items() if item is not None}
        return [walk(item) for item in value if item is not None] if isinstance(value, list | tuple) else value

    events(lambda event, pushed: pushed.update(content=walk(pushed["content"])))


@mutant("TXN-06")
def the_time_is_that_of_the_push() -> None:
    """The origin_server_ts of pushed events is the time at which they are pushed."""
    events(lambda event, pushed: pushed.update(origin_server_ts=int(time.time() * 1000) + 1))


@mutant("TXN-06")
def the_sender_of_state_is_its_subject() -> None:
    """The sender of pushed membership events is whom they are about, and that of other state the room's creator."""

    def change(event, pushed):
        if event.type == "m.room.topic":
            pushed["sender"] = "@nobody:hq.test"

    events(change)


@mutant("TXN-07")
def federation_events_are_pushed() -> None:
    """Pushed events have the keys of federation events."""
    events(lambda event, pushed: pushed.update(hashes={}, signatures={}, depth=event.depth))


@mutant("TXN-07")
def state_events_have_auth_events() -> None:
    """Pushed state events say which events authorise them."""
    events(lambda event, pushed: pushed.update(auth_events=[]) if event.is_state() else None)


@mutant("TXN-08")
def ages_are_text() -> None:
    """The age of a pushed event is a string."""
    events(lambda event, pushed: pushed["unsigned"].update(age=str(pushed["unsigned"].get("age"))))


@mutant("TXN-08")
def the_previous_content_is_another_states() -> None:
    """The prev_content of a pushed event is that of the state of this type that was pushed before, in any room."""
    latest: dict[str, Any] = {}

    def change(event, pushed):
        if event.is_state() and event.type != "m.room.member":
            if "prev_content" in pushed["unsigned"]:
                pushed["unsigned"]["prev_content"] = latest.get(event.type, {})
            latest[event.type] = pushed["content"]

    events(change)


@mutant("TXN-08")
def replaced_states_are_the_event_itself() -> None:
    """The replaces_state of a pushed event is its own id."""

    def change(event, pushed):
        if "replaces_state" in pushed["unsigned"]:
            pushed["unsigned"]["replaces_state"] = event.event_id

    events(change)


@mutant("TXN-08")
def first_states_have_a_previous_content() -> None:
    """The first state of its kind is pushed with a prev_content, its own."""

    def change(event, pushed):
        if event.is_state() and "prev_content" not in pushed["unsigned"]:
            pushed["unsigned"]["prev_content"] = pushed["content"]

    events(change)


@mutant("TXN-09")
def client_transaction_ids_are_pushed() -> None:
    """The client's transaction id is pushed with every event."""
    events(lambda event, pushed: pushed["unsigned"].update(transaction_id="t1"))


@mutant("TXN-09")
def transaction_ids_of_redactions_are_pushed() -> None:
    """The client's transaction id is pushed with redactions."""

    def change(event, pushed):
        if event.type == "m.room.redaction":
            pushed["unsigned"]["transaction_id"] = "t1"

    events(change)


def _ids(make) -> None:
    """Give each transaction the id that `make` makes of its own."""
    _transactions(_attribute("uri", lambda uri: f"{uri.rpartition('/')[0]}/{make(uri.rpartition('/')[2])}"))


@mutant("TXN-10", also=("TXN-16",))
def ids_are_seconds() -> None:
    """The id of a transaction is the time in whole seconds."""
    _ids(lambda _: int(time.time()))


@mutant("TXN-10")
def ids_wrap() -> None:
    """The ids of transactions are a counter that wraps at 16."""
    _ids(lambda number: int(number) % 16)


def _queued(change) -> None:
    """Change the events of one call that queues events for an appservice; several lists are several calls."""
    from synapse.appservice.scheduler import ApplicationServiceScheduler

    plain = ApplicationServiceScheduler.enqueue_for_appservice

    def enqueue(self, appservice, events=None, **others):
        for each in change(self, appservice, list(events or ())) if events else [events]:
            plain(self, appservice, events=each, **others)

    ApplicationServiceScheduler.enqueue_for_appservice = enqueue


@mutant("TXN-16")
def events_are_queued_twice() -> None:
    """Every event is queued twice for the same appservice."""
    _queued(lambda scheduler, appservice, queued: [queued, queued])


@mutant("TXN-16")
def events_are_queued_once_per_ghost() -> None:
    """A membership of a ghost is queued once as an event of the room and once for its target."""

    def change(scheduler, appservice, queued):
        members = [each.state_key for each in queued if each.type == "m.room.member"]
        return [queued, queued] if any(map(appservice.is_user_in_namespace, members)) else [queued]

    _queued(change)


@mutant("TXN-17")
def long_queues_are_cut() -> None:
    """What comes when fifty events are waiting for an appservice is dropped."""

    def change(scheduler, appservice, queued):
        waiting = scheduler.queuer.queued_events.get(appservice.id, [])
        return [] if len(waiting) >= 50 else [queued]

    _queued(change)


@mutant("TXN-17")
def what_exceeds_a_batch_is_lost() -> None:
    """When more than a hundred events wait, those that do not fit into the next transaction are dropped."""
    from synapse.appservice.scheduler import _TransactionController

    plain = _TransactionController.send

    async def send(self, service, events, *others):
        if len(events) == 100:
            self.hs.get_application_service_scheduler().queuer.queued_events[service.id].clear()
        await plain(self, service, events, *others)

    _TransactionController.send = send


@mutant("TXN-17")
def every_hundredth_event_is_lost() -> None:
    """Every hundredth event is not queued."""
    numbers = count(1)
    _queued(lambda scheduler, appservice, queued: [] if next(numbers) % 100 == 0 else [queued])


@mutant("TXN-19")
def redactions_do_not_say_of_what() -> None:
    """Pushed redactions do not name their target."""

    def change(event, pushed):
        if event.type == "m.room.redaction":
            pushed.pop("redacts", None)
            pushed["content"] = {key: value for key, value in pushed["content"].items() if key != "redacts"}

    events(change)


@mutant("TXN-19")
def redactions_have_no_redacts_on_top() -> None:
    """Pushed redactions name their target in their content only."""
    events(lambda event, pushed: pushed.pop("redacts", None))


@mutant("TXN-20")
def ids_have_a_slash() -> None:
    """The id of a transaction contains a slash, which is not encoded."""
    _ids(lambda number: f"hq/{number}")


@mutant("TXN-20")
def ids_have_a_percent_sign() -> None:
    """The id of a transaction contains a percent sign, which is not encoded."""
    _ids(lambda number: f"100%-{number}")


@mutant("TXN-20")
def transactions_have_a_query() -> None:
    """Transactions have a query parameter that no version knows."""
    _transactions(_attribute("uri", lambda uri: f"{uri}?attempt=1"))
