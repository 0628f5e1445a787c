"""An appservice that is not ours works with the reference: mautrix, which many bridges are made of."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from mautrix.appservice import AppService
from mautrix.appservice.state_store import FileASStateStore
from mautrix.types import RoomCreatePreset

from conformance.appservice.registration import Namespace, Registration
from conformance.appservice.roster import free_ports
from conformance.homeserver.target import SERVER_NAME
from conformance.reference.homeserver import Homeserver

CLIENT = "/_matrix/client/v3"


@pytest.fixture
def registration() -> Registration:
    """A bridge with ghosts and portals."""
    return Registration(
        code="M",
        id="mautrix",
        url=f"http://127.0.0.1:{next(free_ports('127.0.0.1'))}",
        as_token="as-token",
        hs_token="hs-token",
        sender_localpart="bridgebot",
        users=(Namespace("@bridge_.*", exclusive=True),),
        aliases=(Namespace("#bridge_.*", exclusive=True),),
    )


@pytest.fixture
def url(registration: Registration) -> Iterator[str]:
    """The reference homeserver."""
    hs = Homeserver([registration], SERVER_NAME, time_scale=0.05)
    yield hs.start()
    hs.stop()


class Human:
    """An ordinary user, by plain HTTP."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.token = ""
        body: dict[str, Any] = {"username": "alice", "password": "correct horse"}
        session = self.call("POST", "/register", body)["session"]
        self.token = self.call("POST", "/register", {**body, "auth": {"type": "m.login.dummy", "session": session}})[
            "access_token"
        ]

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        return requests.request(method, self.url + CLIENT + path, json=body, headers=headers, timeout=10).json()


def test_a_bridge_made_with_mautrix_works(registration: Registration, url: str, tmp_path: Path) -> None:
    asyncio.run(_bridge(registration, url, tmp_path))


async def _bridge(registration: Registration, url: str, directory: Path) -> None:
    store = FileASStateStore(path=str(directory / "state.json"), binary=False)
    bridge = AppService(
        server=url,
        domain=SERVER_NAME,
        as_token=registration.as_token,
        hs_token=registration.hs_token,
        bot_localpart=registration.sender_localpart,
        id=registration.id,
        state_store=store,
    )
    pushed: asyncio.Queue[Any] = asyncio.Queue()
    asked: list[str] = []
    made: list[str] = []

    async def on_event(event: Any) -> None:
        await pushed.put(event)

    async def query_user(user_id: str) -> dict[str, Any]:
        asked.append(user_id)
        await bridge.intent.user(user_id).ensure_registered()
        return {"made": True}  # an empty object is no success to mautrix

    async def query_alias(alias: str) -> dict[str, Any]:
        asked.append(alias)
        localpart = alias[1:].partition(":")[0]
        made.append(await bridge.intent.create_room(alias_localpart=localpart, preset=RoomCreatePreset.PUBLIC))
        return {"made": True}  # an empty object is no success to mautrix

    bridge.matrix_event_handler(on_event)
    bridge.query_user, bridge.query_alias = query_user, query_alias
    await bridge.start("127.0.0.1", registration.port)
    try:
        human = await asyncio.to_thread(Human, url)

        def call(*arguments: Any) -> Any:
            return asyncio.to_thread(human.call, *arguments)

        assert await bridge.ping_self() >= 0
        # A ghost registers, joins and sends, and the human sees it.
        room = (await call("POST", "/createRoom", {"preset": "public_chat"}))["room_id"]
        ghost = bridge.intent.user(f"@bridge_ghost:{SERVER_NAME}")
        await ghost.ensure_registered()
        await ghost.set_displayname("A ghost")
        await ghost.ensure_joined(room)
        sent = await ghost.send_text(room, "hello from the other side")
        seen = await call("GET", f"/rooms/{room}/event/{sent}")
        assert (seen["sender"], seen["content"]["body"]) == (ghost.mxid, "hello from the other side")
        # What the human says reaches the bridge.
        answer = await call("PUT", f"/rooms/{room}/send/m.room.message/t1", {"msgtype": "m.text", "body": "hello"})
        while (event := await asyncio.wait_for(pushed.get(), 10)).event_id != answer["event_id"]:
            pass
        assert (event.sender, event.content.body) == (f"@alice:{SERVER_NAME}", "hello")
        # An unknown ghost and an unknown alias come into being when the homeserver asks for them.
        unknown, alias = f"@bridge_unknown:{SERVER_NAME}", f"#bridge_portal:{SERVER_NAME}"
        assert await call("POST", f"/rooms/{room}/invite", {"user_id": unknown}) == {}
        joined = await call("POST", f"/join/{alias.replace('#', '%23')}", {})
        assert asked == [unknown, alias]
        assert [joined["room_id"]] == made
        while (event := await asyncio.wait_for(pushed.get(), 10)).state_key != f"@alice:{SERVER_NAME}":
            pass
        assert event.room_id == made[0]
    finally:
        await bridge.stop()
