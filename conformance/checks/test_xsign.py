"""XSIGN: cross-signing keys of ghosts (AS: Server admin style permissions).

Master keys are all it takes: they may be unsigned.
"""

from __future__ import annotations

import base64
import os
from typing import Any

from conformance.appservice.fleet import Appservice
from conformance.catalogue.versions import Version, newest
from conformance.homeserver.client import Response
from conformance.homeserver.users import User
from conformance.requirement import requirement
from conformance.run import Run
from conformance.verdict import control, expect, record


@requirement("XSIGN-01")
def test_a_ghost_uploads_its_first_key(run: Run, a: Appservice, human: User) -> None:
    """A ghost's first master key is accepted at once, without interactive authentication, and shown to others."""
    for ghost in (_ghost(a), _ghost(a, "hqopen-")):
        _must_upload(run, human, ghost, "its first master key")


@requirement("XSIGN-02")
def test_a_ghost_replaces_its_key(run: Run, a: Appservice, human: User) -> None:
    """So is every later master key, of ghosts and of the sender user, and others are shown the newest."""
    users = [_ghost(a), a.sender]
    for user in users:
        if _master(human, user) is None:  # the sender user is the same in every run
            first, key = _upload(user)
            control(first.ok, f"no key can be uploaded: {first} (XSIGN-01)", first.exchange)
            control(_shows(run, human, user, key), f"the key of {user} is not shown: nothing tells whether it changes")
    explicit = a.as_user(a.sender.user_id)
    users += [explicit] if explicit.whoami().ok else []  # whether it may be named is IDENT-07
    for user in (*users, *users):
        _must_upload(run, human, user, "another master key")
    device = {"device_id": run.names.fresh("HQDEV")}
    ghost = users[0]
    ghost.provoke("PUT", f"/devices/{device['device_id']}", json={})
    if ghost.whoami(query=device).ok:
        _must_upload(run, human, ghost, "another master key, acting as a device,", device)


@requirement("XSIGN-03")
def test_a_human_who_replaces_a_key_is_authenticated(run: Run, human: User) -> None:
    """A human's first master key is accepted, another one only after interactive authentication."""
    newcomer = run.humans.registered(run.names.fresh("human-"))
    first, key = _upload(newcomer)
    claimed = newest(run.claimed)
    if claimed is not None and claimed < Version.parse("v1.11") and _asks(first):
        record("interactive authentication is asked for with the first key already")
        return
    expect(first.status == 200, "200 for a human's first master key", _told(first), first.exchange)
    control(_shows(run, human, newcomer, key), f"the key of {newcomer} is not shown: nothing tells whether it changes")
    for _ in range(2):
        second, _ = _upload(newcomer)
        expect(_asks(second), "401 with flows for a human's second master key", _told(second), second.exchange)
        same = _master(human, newcomer) == key
        expect(same, f"the first key of {newcomer} still in place", "another, or none", second.exchange)
    again, _ = _upload(newcomer, key=key)
    record(f"the same key once more is answered {again}", again.exchange)


@requirement("XSIGN-04")
def test_nobody_uploads_anothers_key(run: Run, a: Appservice, b: Appservice, human: User) -> None:
    """A key whose `user_id` is another user's is refused, and neither the one nor the other has another key then."""
    ghost, bare = _ghost(a), _ghost(a)
    others = [_ghost(a), _ghost(b)]
    keys: dict[User, str | None] = {}
    for user in (ghost, *others):
        answer, keys[user] = _upload(user)
        control(answer.ok, f"no key can be uploaded: {answer} (XSIGN-01)", answer.exchange)
        control(_shows(run, human, user, str(keys[user])), f"the key of {user} is not shown")
    keys |= {bare: None}
    human_key = _master(human, human)
    for user, owner in ((ghost, others[0]), (ghost, others[1]), (bare, others[0]), (ghost, bare), (ghost, human)):
        answer, _ = _upload(user, owner=owner.user_id)
        expected = f"a 4xx for a key of {owner}, uploaded as {user}"
        control(not _asks(answer), f"{user} is asked for authentication first (XSIGN-01, XSIGN-02)", answer.exchange)
        expect(answer.refused, expected, answer, answer.exchange)
        for each, key in (*keys.items(), (human, human_key)):
            seen = _master(human, each)
            expect(seen == key, f"the key of {each} as before: {key}", seen, answer.exchange)


def _ghost(appservice: Appservice, prefix: str | None = None) -> User:
    """A fresh ghost as which the appservice can act (IDENT-02 judges that)."""
    ghost = appservice.ghost(prefix)
    answer = ghost.whoami()
    acting = answer.ok and answer.json.get("user_id") == ghost.user_id
    control(acting, f"{appservice} cannot act as its ghost {ghost}: whoami {answer}", answer.exchange)
    return ghost


def _upload(
    user: User, *, owner: str | None = None, key: str | None = None, query: dict[str, str] | None = None
) -> tuple[Response, str]:
    """Upload a master key, of another owner than the caller or a known one where that is said; what came, the key."""
    key = key or base64.b64encode(os.urandom(32)).decode().rstrip("=")
    master = {"user_id": owner or user.user_id, "usage": ["master"], "keys": {f"ed25519:{key}": key}}
    return user.call("POST", "/keys/device_signing/upload", json={"master_key": master}, query=query), key


def _must_upload(run: Run, human: User, user: User, what: str, query: dict[str, str] | None = None) -> None:
    answer, key = _upload(user, query=query)
    expect(answer.status == 200, f"200 for {what} of {user}", _told(answer), answer.exchange)
    shown = _shows(run, human, user, key)
    expect(shown, f"the uploaded key {key} of {user} from /keys/query", _master(human, user), answer.exchange)


def _master(asker: User, owner: User) -> str | None:
    """The master key that a homeserver shows of a user."""
    body: dict[str, Any] = {"device_keys": {owner.user_id: []}}
    keys = asker.do("query keys", "POST", "/keys/query", json=body).json.get("master_keys")
    found = keys.get(owner.user_id) if isinstance(keys, dict) else None
    values = found.get("keys") if isinstance(found, dict) else None
    return next(iter(values.values()), None) if isinstance(values, dict) else None


def _shows(run: Run, asker: User, owner: User, key: str) -> bool:
    """Whether a key is shown, waiting for it."""
    return bool(run.eventually(lambda: _master(asker, owner) == key or None))


def _asks(answer: Response) -> bool:
    """Whether a call is answered with a demand for interactive authentication."""
    return answer.status == 401 and bool(answer.json.get("flows"))


def _told(answer: Response) -> str:
    return f"{answer} with flows" if "flows" in answer.json else str(answer)
