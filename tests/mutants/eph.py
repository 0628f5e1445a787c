"""Mutants of area EPH."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, method-assign, assignment"

from __future__ import annotations

from copy import deepcopy
from typing import Any

from tests.mutants import mutant
from tests.mutants._outages import pending_instead, sent_instead
from tests.mutants._tools import uncached


def _items(kind: str, change) -> None:
    """Have `change(appservice, item)` say what is pushed of an ephemeral item of a kind: an item, or nothing."""

    async def send(transaction, api, right):
        items = [deepcopy(dict(each)) for each in transaction.ephemeral]
        pushed = [change(transaction.service, each) if each["type"] == kind else each for each in items]
        transaction.ephemeral = [each for each in pushed if each]
        return await right(transaction, api)

    sent_instead(send)


def _edited(kind: str, edit) -> None:
    """Have `edit(item)` change each ephemeral item of a kind."""

    def change(appservice, item):
        edit(item)
        return item

    _items(kind, change)


@mutant("EPH-01")
def only_the_first_typist_is_told() -> None:
    """When somebody types already, nothing is pushed when another one begins."""
    _items("m.typing", lambda appservice, item: item if len(item["content"]["user_ids"]) < 2 else None)


@mutant("EPH-01", also=("EPH-20",))
def typing_of_humans_is_not_pushed() -> None:
    """Only the ghosts among those who type are told."""

    def change(appservice, item):
        everybody = item["content"]["user_ids"]
        item["content"]["user_ids"] = [each for each in everybody if appservice.is_interested_in_user(each)]
        return item

    _items("m.typing", change)


@mutant("EPH-02")
def typing_names_no_room() -> None:
    """Typing notices have no room_id, as in /sync."""
    _edited("m.typing", lambda item: item.pop("room_id"))


@mutant("EPH-02", also=("EPH-04", "EPH-05", "EPH-20", "EPH-22"))
def typing_names_the_room_before() -> None:
    """Typing notices have the room_id of the notice before."""
    before: dict[str, str] = {}

    def edit(item):
        item["room_id"], before["room"] = before.get("room", item["room_id"]), item["room_id"]

    _edited("m.typing", edit)


@mutant("EPH-03")
def typists_are_an_object() -> None:
    """Those who type are keys of an object."""
    _edited(
        "m.typing", lambda item: item["content"].update(user_ids={each: {} for each in item["content"]["user_ids"]})
    )


@mutant("EPH-03")
def typing_is_in_the_federation_format() -> None:
    """Typing notices are those of federation, one for a user."""

    def edit(item):
        users = item["content"]["user_ids"]
        item["content"] = {"room_id": item["room_id"], "user_id": users[-1] if users else None, "typing": bool(users)}

    _edited("m.typing", edit)


@mutant("EPH-04")
def the_end_of_typing_is_not_pushed() -> None:
    """A typing notice with nobody in it is not pushed."""
    _items("m.typing", lambda appservice, item: item if item["content"]["user_ids"] else None)


@mutant("EPH-04")
def who_stops_is_told_when_all_have_stopped() -> None:
    """Who stops typing while others type on stays in the list."""
    known: dict[str, list[str]] = {}

    def edit(item):
        users, before = item["content"]["user_ids"], known.get(item["room_id"], [])
        known[item["room_id"]] = sorted({*users, *before}) if users else []
        item["content"]["user_ids"] = known[item["room_id"]]

    _edited("m.typing", edit)


def _typing_of(is_told) -> None:
    """Push those typing notices of which `is_told(handler, appservice, room_id)` says so."""
    from synapse.handlers.appservice import ApplicationServicesHandler

    plain = ApplicationServicesHandler._handle_typing

    async def handle(self, service, new_token):
        items = await plain(self, service, new_token)
        return [each for each in items if await is_told(self, service, each["room_id"])]

    ApplicationServicesHandler._handle_typing = handle


@mutant("EPH-05")
def typing_is_for_members() -> None:
    """Typing is pushed to those who have a user in the room, and not for the sake of an alias."""

    async def is_told(handler, service, room_id):
        return await service._matches_user_in_member_list(room_id, handler.store)

    _typing_of(is_told)


@mutant("EPH-06", also=("EPH-22",))
def all_typing_is_pushed() -> None:
    """Typing is pushed whatever room it is in."""
    from synapse.handlers.typing import TypingNotificationEventSource

    plain = TypingNotificationEventSource.get_new_events_as

    class Keen:
        async def is_interested_in_room(self, room_id, store):
            return True

    async def all_of(self, from_key, service):
        return await plain(self, from_key, Keen())

    TypingNotificationEventSource.get_new_events_as = all_of


@mutant("EPH-07", also=("EPH-08", "EPH-22"))
def only_the_first_receipt_of_a_user_is_pushed() -> None:
    """When a user's receipt in a room has been pushed, no other one of that user is."""
    had: set[tuple[str, str, str]] = set()

    def change(appservice, item):
        for types in item["content"].values():
            for readers in types.values():
                for reader in list(readers):
                    key = (appservice.id, item["room_id"], reader)
                    readers.pop(reader) if key in had else had.add(key)
        return item if any(any(types.values()) for types in item["content"].values()) else None

    _items("m.receipt", change)


@mutant("EPH-07", also=("EPH-08", "EPH-22"))
def receipts_come_with_the_next_one() -> None:
    """A receipt is pushed when there is another one: the position is one too low."""
    from synapse.handlers.appservice import ApplicationServicesHandler
    from synapse.types import MultiWriterStreamToken, StreamKeyType

    plain = ApplicationServicesHandler.notify_interested_services_ephemeral

    def notify(self, stream_key, new_token, users):
        if stream_key == StreamKeyType.RECEIPT:
            new_token = MultiWriterStreamToken(stream=new_token.stream - 1)
        plain(self, stream_key, new_token, users)

    ApplicationServicesHandler.notify_interested_services_ephemeral = notify


@mutant("EPH-08")
def receipts_name_no_room() -> None:
    """Receipts have no room_id, as in /sync."""
    _edited("m.receipt", lambda item: item.pop("room_id"))


@mutant("EPH-09")
def receipts_are_in_the_federation_format() -> None:
    """The content of a receipt is that of federation: by room, type and user."""

    def edit(item):
        users = {
            reader: {"event_ids": [event], "data": data}
            for event, types in item["content"].items()
            for readers in types.values()
            for reader, data in readers.items()
        }
        item["content"] = {item["room_id"]: {"m.read": users}}

    _edited("m.receipt", edit)


@mutant("EPH-09")
def receipts_have_a_list_of_readers() -> None:
    """The readers of an event are a list."""

    def edit(item):
        item["content"] = {
            event: {kind: sorted(readers) for kind, readers in types.items()}
            for event, types in item["content"].items()
        }

    _edited("m.receipt", edit)


def _private_receipts_of(is_pushed) -> None:
    """Push those private receipts of which `is_pushed(appservices, appservice, user_id)` says so."""
    from synapse.handlers.receipts import ReceiptEventSource

    plain = ReceiptEventSource.get_new_events_as

    class Asked:
        def __init__(self, services, service):
            self.services, self.service = services, service

        async def is_interested_in_room(self, room_id, store):
            return await self.service.is_interested_in_room(room_id, store)

        def is_interested_in_user(self, user_id):
            return is_pushed(self.services, self.service, user_id)

    async def get(self, from_key, to_key, service):
        return await plain(self, from_key, to_key, Asked(self.store.get_app_services(), service))

    ReceiptEventSource.get_new_events_as = get


@mutant("EPH-11", also=("EPH-13",))
def private_receipts_are_pushed_to_all() -> None:
    """Private receipts are pushed like others."""
    _private_receipts_of(lambda services, service, user_id: True)


@mutant("EPH-11")
def private_receipts_of_humans_are_pushed_to_all() -> None:
    """Private receipts are hidden from other appservices when they are those of ghosts only."""

    def is_pushed(services, service, user_id):
        return not any(each.is_interested_in_user(user_id) for each in services if each is not service)

    _private_receipts_of(is_pushed)


@mutant("EPH-12")
def private_receipts_are_pushed_to_nobody() -> None:
    """Private receipts are not pushed, those of ghosts neither."""
    _private_receipts_of(lambda services, service, user_id: False)


@mutant("EPH-12")
def private_receipts_of_the_first_namespace_are_pushed() -> None:
    """A ghost's private receipts are pushed to its appservice when its first namespace entry matches."""
    _private_receipts_of(lambda services, service, user_id: bool(service.namespaces["users"][:1])
                         and bool(service.namespaces["users"][0].regex.match(user_id)))  # fmt: skip


@mutant("EPH-12")
def private_receipts_of_ghosts_are_public() -> None:
    """A ghost's private receipts are pushed as m.read."""

    def edit(item):
        for types in item["content"].values():
            if "m.read.private" in types:
                types.setdefault("m.read", {}).update(types.pop("m.read.private"))

    _edited("m.receipt", edit)


@mutant("EPH-13")
def private_receipts_of_ghosts_are_everybodys() -> None:
    """The private receipts of a ghost are pushed to every appservice."""
    _private_receipts_of(lambda services, service, user_id: any(s.is_interested_in_user(user_id) for s in services))


@mutant("EPH-14")
def presence_has_no_status_message() -> None:
    """Presence is pushed without its status message."""
    _edited("m.presence", lambda item: item["content"].pop("status_msg", None))


@mutant("EPH-14")
def presence_is_that_of_before() -> None:
    """What is pushed of somebody's presence is what was known of it before."""
    known: dict[str, Any] = {}

    def edit(item):
        item["content"], known[item["sender"]] = known.get(item["sender"], {"presence": "online"}), item["content"]

    _edited("m.presence", edit)


def _presence_of(is_interested) -> None:
    """Have `is_interested(appservice, user_id, store, right)` say whose presence interests an appservice."""
    from synapse.appservice import ApplicationService

    right = uncached("is_interested_in_presence")

    async def interested(self, user_id, store):
        return await is_interested(self, user_id, store, right)

    ApplicationService.is_interested_in_presence = interested


@mutant("EPH-15")
def presence_of_ghosts_is_that_of_members() -> None:
    """The presence of a ghost is pushed when it is in a room that interests its appservice."""

    async def is_interested(self, user_id, store, right):
        for room_id in await store.get_rooms_for_user(user_id.to_string()):
            if await self.is_interested_in_room(room_id, store):
                return True
        return False

    _presence_of(is_interested)


@mutant("EPH-15")
def presence_of_ghosts_is_that_of_the_first_namespace() -> None:
    """The presence of a ghost is pushed when it is in the first namespace entry."""

    async def is_interested(self, user_id, store, right):
        users = self.namespaces["users"]
        others = any(each.regex.match(user_id.to_string()) for each in users[1:])
        return not others and await right(self, user_id, store)

    _presence_of(is_interested)


@mutant("EPH-16")
def presence_has_no_sender() -> None:
    """Presence names its user within the content."""
    _edited("m.presence", lambda item: item["content"].update(user_id=item.pop("sender")))


@mutant("EPH-16")
def presence_is_a_number() -> None:
    """The presence is a number."""
    names = ["offline", "unavailable", "online"]
    _edited("m.presence", lambda item: item["content"].update(presence=names.index(item["content"]["presence"])))


@mutant("EPH-17")
def presence_of_strangers_is_pushed() -> None:
    """Presence is pushed whoever it is of."""

    async def is_interested(self, user_id, store, right):
        return True

    _presence_of(is_interested)


@mutant("EPH-17")
def who_was_once_interesting_is_interesting() -> None:
    """The presence of somebody who has left the ghosts' rooms is pushed all the same."""
    known: set[tuple[str, str]] = set()

    async def is_interested(self, user_id, store, right):
        key = (self.id, user_id.to_string())
        if key not in known and await right(self, user_id, store):
            known.add(key)
        return key in known

    _presence_of(is_interested)


@mutant("EPH-18")
def everybody_gets_ephemeral_data() -> None:
    """Ephemeral data are pushed whether or not a registration asks for them."""
    from synapse.appservice import ApplicationService

    ApplicationService.supports_ephemeral = property(lambda self: True, lambda self, value: None)


@mutant("EPH-18")
def any_value_of_receive_ephemeral_counts() -> None:
    """A registration with receive_ephemeral gets ephemeral data, whatever the value."""
    from synapse.config import appservice

    plain = appservice._load_appservice

    def load(hostname, info, filename):
        service = plain(hostname, info, filename)
        service.supports_ephemeral = "receive_ephemeral" in info
        return service

    appservice._load_appservice = load


@mutant("EPH-19")
def read_markers_are_pushed() -> None:
    """With each receipt of a user comes the marker of what is fully read."""

    async def send(transaction, api, right):
        markers = [
            {
                "type": "m.fully_read",
                "room_id": each.get("room_id"),
                "content": {"event_id": next(iter(each["content"]))},
            }
            for each in transaction.ephemeral
            if each["type"] == "m.receipt"
        ]
        transaction.ephemeral = [*transaction.ephemeral, *markers]
        return await right(transaction, api)

    sent_instead(send)


@mutant("EPH-20")
def typing_is_for_rooms_with_ghosts() -> None:
    """Typing in a room where only the sender user is does not interest the appservice."""

    async def is_told(handler, service, room_id):
        if any(service.is_room_alias_in_namespace(each) for each in await handler.store.get_aliases_for_room(room_id)):
            return True
        members = await handler.store.get_local_users_in_room(room_id)
        return service.is_room_id_in_namespace(room_id) or any(map(service.is_user_in_namespace, members))

    _typing_of(is_told)


@mutant("EPH-21")
def typing_is_brought_up_to_date_in_a_retry() -> None:
    """A transaction that is tried again says who types now."""
    first: dict[tuple[str, int], list[Any]] = {}

    async def send(transaction, api, right):
        first.setdefault((transaction.service.id, transaction.id), list(transaction.ephemeral))
        return await right(transaction, api)

    async def load(store, service, right):
        transaction = await right(store, service)
        if transaction is not None:
            items = first.get((service.id, transaction.id), [])
            typing = [each for each in items if each["type"] == "m.typing"]
            transaction.ephemeral = [{**each, "content": {"user_ids": []}} for each in typing]
        return transaction

    sent_instead(send)
    pending_instead(load)


@mutant("EPH-22")
def receipts_of_all_rooms_are_one() -> None:
    """The content of a receipt has the receipts of the room before as well."""
    before: dict[str, Any] = {}

    def change(appservice, item):
        last, before[appservice.id] = before.get(appservice.id, {}), item["content"]
        return {**item, "content": {**last, **item["content"]}}

    _items("m.receipt", change)
