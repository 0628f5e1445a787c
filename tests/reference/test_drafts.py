"""The reference homeserver in the dialects of 2015, asked directly."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
import requests

from conformance.appservice.registration import Registration
from conformance.dialects import DIALECTS
from conformance.reference.homeserver import Homeserver

ADMIN, CLIENT = "/_matrix/appservice/v1", "/_matrix/client/api/v1"

STORED = Registration("A", "a", None, "T_a", "", "unused")


@contextmanager
def serving(name: str, **options: Any) -> Iterator[str]:
    """A homeserver whose administrator has stored the token T_a; its URL."""
    homeserver = Homeserver([STORED], "hsdomain.com", time_scale=0.01, dialect=DIALECTS[name], **options)
    try:
        yield homeserver.start()
    finally:
        homeserver.stop()


def enrolled(server: str, namespaces: Any, **content: Any) -> requests.Response:
    body = {"url": "http://127.0.0.1:9", "as_token": "T_a", "namespaces": namespaces, **content}
    return requests.post(f"{server}{ADMIN}/register", json=body, timeout=5)


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("draft-003", {"users": ["own-.*"]}, {"users": [{"regex": "own-.*", "exclusive": True}]}),
        ("draft-001", {"rooms": ["!own-.*"]}, {"users": "@own-.*"}),
        ("draft-004", {"users": [{"regex": "@own-.*", "exclusive": True}]}, {"users": ["@own-.*"]}),
        ("draft-001", {}, {"aliases": ["#own-("]}),
    ],
)
def test_registrations_have_the_shape_of_the_draft(name: str, right: Any, wrong: Any) -> None:
    with serving(name) as url:
        assert enrolled(url, wrong).status_code == 400
        first = enrolled(url, right)
        assert first.status_code == 200
        assert enrolled(url, right).json() == first.json()


def test_tokens_decide_who_registers_and_who_unregisters() -> None:
    with serving("draft-003") as url:
        assert enrolled(url, {}, as_token=None).status_code == 401
        assert enrolled(url, {}, as_token="other").status_code == 403
        leave = f"{url}{ADMIN}/unregister"
        assert requests.post(leave, json={"as_token": "T_a"}, timeout=5).status_code == 403
        enrolled(url, {})
        assert requests.post(leave, json={"as_token": "other"}, timeout=5).status_code == 403
        assert requests.post(leave, json={"as_token": "T_a"}, timeout=5).status_code == 200
        assert requests.post(leave, json={"as_token": "T_a"}, timeout=5).status_code == 403


def test_there_is_nothing_of_today() -> None:
    with serving("draft-001") as url:
        for path in ("/_matrix/client/versions", "/_matrix/client/v3/login", f"{CLIENT}/account/whoami"):
            assert requests.get(url + path, timeout=5).status_code == 404, path
        assert requests.get(f"{url}{CLIENT}/login", timeout=5).json()["flows"]


def test_humans_register_in_one_step_and_tokens_stand_in_the_query() -> None:
    with serving("draft-004") as url:
        body = {"type": "m.login.password", "user": "Bob", "password": "correct horse"}
        bob = requests.post(f"{url}{CLIENT}/register", json=body, timeout=5).json()
        assert bob["user_id"] == "@Bob:hsdomain.com"
        token = bob["access_token"]
        made = requests.post(f"{url}{CLIENT}/createRoom", params={"access_token": token}, json={}, timeout=5)
        assert made.status_code == 200
        header = {"Authorization": f"Bearer {token}"}
        assert requests.post(f"{url}{CLIENT}/createRoom", headers=header, json={}, timeout=5).status_code == 401
        room = made.json()["room_id"].replace("!", "%21")
        for method, path in (("PUT", "send/m.room.message"), ("POST", "send/m.room.message")):
            sent = requests.request(
                method, f"{url}{CLIENT}/rooms/{room}/{path}", params={"access_token": token}, json={}, timeout=5
            )
            assert sent.status_code == 200
        found = requests.get(
            f"{url}{CLIENT}/events/{sent.json()['event_id']}", params={"access_token": token}, timeout=5
        )
        assert found.json()["user_id"] == "@Bob:hsdomain.com"
        assert "sender" not in found.json()
        history = {"access_token": token, "from": "END", "dir": "b"}
        page = requests.get(f"{url}{CLIENT}/rooms/{room}/messages", params=history, timeout=5).json()
        assert page["chunk"][0]["event_id"] == sent.json()["event_id"]


def test_uris_become_ids_in_r0_only() -> None:
    with serving("r0") as url:
        for what, key in (("user", "user_id"), ("alias", "alias")):
            ask = f"{url}/_matrix/app/r0/{what}"
            told = requests.get(ask, params={"uri": "irc://example.org/Bob"}, timeout=5).json()
            assert told[key][1:] == "irc=3a//example.org/=42ob:hsdomain.com"
            assert requests.get(ask, timeout=5).status_code == 400
    with serving("draft-004") as url:
        assert requests.get(f"{url}/_matrix/app/r0/user", timeout=5).status_code == 404


class Bridge(BaseHTTPRequestHandler):
    """Answers queries as the second draft has it, about everything."""

    def do_GET(self) -> None:
        event = (
            b'{"content": {"body": "hello?"}, "origin_server_ts": 7, "user_id": "@own-bob:hsdomain.com", "type": "t"}'
        )
        room = b'{"events": [' + event + b'], "state": [{"broken": true}, 1]}'
        body = b'{"profile": {"display_name": "Bob"}}' if self.path.startswith("/users/") else room
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_PUT(self) -> None:
        self.do_GET()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def test_answers_become_rooms_with_fixed_ids_whatever_else_they_hold() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Bridge)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        with serving("draft-001") as url:
            home = f"http://127.0.0.1:{server.server_address[1]}"
            enrolled(url, {"users": ["@own-.*"], "aliases": ["#own-.*"]}, url=home)
            body = {"type": "m.login.password", "user": "alice", "password": "correct horse"}
            token = requests.post(f"{url}{CLIENT}/register", json=body, timeout=5).json()["access_token"]
            mine = {"access_token": token}
            joins = [
                requests.post(f"{url}{CLIENT}/join/%23own-room%3Ahsdomain.com", params=mine, json={}, timeout=5).json()
                for _ in range(2)
            ]
            assert joins == [{"room_id": "!own-room:hsdomain.com"}] * 2
            name = requests.get(f"{url}{CLIENT}/profile/%40own-bob%3Ahsdomain.com", timeout=5).json()
            assert name["displayname"] == "Bob"
            page = requests.get(f"{url}{CLIENT}/rooms/%21own-room%3Ahsdomain.com/messages", params=mine, timeout=5)
            said = [each for each in page.json()["chunk"] if each["type"] == "t"]
            assert [(each["user_id"], each["origin_server_ts"]) for each in said] == [("@own-bob:hsdomain.com", 7)]
    finally:
        server.shutdown()
        server.server_close()
