"""XSIGN: cross-signing keys of ghosts (AS: Server admin style permissions).

What is uploaded are whole sets of genuine keys, as clients upload them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from conformance.appservice.fleet import Appservice
from conformance.catalogue.versions import Version, newest
from conformance.homeserver.client import Response
from conformance.homeserver.keys import CROSS_SIGNING, CrossSigningKeys
from conformance.homeserver.users import User
from conformance.requirement import requirement
from conformance.run import Run
from conformance.verdict import control, expect, record


@requirement("XSIGN-01")
def test_a_ghost_uploads_its_first_keys(run: Run, a: Appservice, human: User) -> None:
    """A ghost's first keys are accepted at once, without interactive authentication, and shown to others."""
    for ghost in (_ghost(a), _ghost(a, "hqopen-")):
        _must_upload(run, human, ghost, "the first keys", CrossSigningKeys(ghost.user_id))


@requirement("XSIGN-02")
def test_a_ghost_replaces_its_keys(run: Run, a: Appservice, human: User) -> None:
    """So are all later ones, of ghosts and of the sender user, and others are shown the newest."""
    users = [_ghost(a), _ghost(a, "hqopen-"), a.sender]
    for user in users:
        if _shown(human, user)[user].master is None:  # the sender user is the same in every run
            keys = CrossSigningKeys(user.user_id)
            first = _upload(user, keys)
            control(first.ok, f"no keys can be uploaded: {first} (XSIGN-01)", first.exchange)
            control(_shows(run, human, user, keys), f"the keys of {user} are not shown: nothing tells of a change")
    explicit = a.as_user(a.sender.user_id)
    users += [explicit] if explicit.whoami().ok else []  # whether it may be named is IDENT-07
    for user in (*users, *users):
        keys = CrossSigningKeys(user.user_id)
        _must_upload(run, human, user, "other keys", keys)
        signed = CrossSigningKeys(user.user_id, keys.master)
        _must_upload(run, human, user, "other keys that the master key signs", signed, CROSS_SIGNING[1:])
    device = {"device_id": run.names.fresh("HQDEV")}
    ghost = users[0]
    ghost.provoke("PUT", f"/devices/{device['device_id']}", json={})
    if ghost.whoami(query=device).ok:
        keys = CrossSigningKeys(ghost.user_id)
        _must_upload(run, human, ghost, "other keys, uploaded as a device,", keys, query=device)


@requirement("XSIGN-03")
def test_a_human_who_replaces_keys_is_authenticated(run: Run, human: User) -> None:
    """A human's first keys are accepted, others only after interactive authentication."""
    newcomer = run.humans.registered(run.names.fresh("human-"))
    keys = CrossSigningKeys(newcomer.user_id)
    first = _upload(newcomer, keys)
    claimed = newest(run.claimed)
    if claimed is not None and claimed < Version.parse("v1.11") and _asks(first):
        record("interactive authentication is asked for with the first keys already")
        return
    expect(first.status == 200, "200 for a human's first keys", _told(first), first.exchange)
    control(_shows(run, human, newcomer, keys), f"the keys of {newcomer} are not shown: nothing tells of a change")
    for _ in range(2):
        second = _upload(newcomer, CrossSigningKeys(newcomer.user_id))
        expect(_asks(second), "401 with flows for other keys of a human", _told(second), second.exchange)
        shown = _shown(human, newcomer)[newcomer]
        expect(shown == _of(keys), f"the first keys of {newcomer} still in place", shown, second.exchange)
    again = _upload(newcomer, keys)
    record(f"the same keys once more are answered {again}", again.exchange)


@requirement("XSIGN-04")
def test_nobody_uploads_anothers_keys(run: Run, a: Appservice, b: Appservice, human: User) -> None:
    """Keys whose `user_id` is another user's are refused, and neither the one nor the other has other keys then."""
    ghost, bare = _ghost(a), _ghost(a)
    others = [_ghost(a), _ghost(b)]
    for user in (ghost, *others):
        keys = CrossSigningKeys(user.user_id)
        answer = _upload(user, keys)
        control(answer.ok, f"no keys can be uploaded: {answer} (XSIGN-01)", answer.exchange)
        control(_shows(run, human, user, keys), f"the keys of {user} are not shown")
    before = _shown(human, ghost, bare, *others, human)
    for user, owner in ((ghost, others[0]), (ghost, others[1]), (bare, others[0]), (ghost, bare), (ghost, human)):
        for names in (["master_key"], CROSS_SIGNING):
            answer = _upload(user, CrossSigningKeys(owner.user_id), names)
            expected = f"a 4xx for keys of {owner}, uploaded as {user}"
            control(not _asks(answer), f"{user} is asked for authentication (XSIGN-01, -02)", answer.exchange)
            expect(answer.refused, expected, answer, answer.exchange)
            for each, seen in _shown(human, *before).items():
                expect(seen == before[each], f"the keys of {each} as before: {before[each]}", seen, answer.exchange)


class _Shown(NamedTuple):
    """The public keys that a homeserver shows of a user."""

    master: str | None
    self_signing: str | None


def _ghost(appservice: Appservice, prefix: str | None = None) -> User:
    """A fresh ghost as which the appservice can act (IDENT-02 judges that)."""
    ghost = appservice.ghost(prefix)
    answer = ghost.whoami()
    acting = answer.ok and answer.json.get("user_id") == ghost.user_id
    control(acting, f"{appservice} cannot act as its ghost {ghost}: whoami {answer}", answer.exchange)
    return ghost


def _upload(
    user: User, keys: CrossSigningKeys, names: Iterable[str] = CROSS_SIGNING, query: dict[str, str] | None = None
) -> Response:
    """Upload cross-signing keys, all or some."""
    return user.call("POST", "/keys/device_signing/upload", json=keys.body(names), query=query)


def _must_upload(
    run: Run,
    human: User,
    user: User,
    what: str,
    keys: CrossSigningKeys,
    names: Iterable[str] = CROSS_SIGNING,
    query: dict[str, str] | None = None,
) -> None:
    answer = _upload(user, keys, names, query)
    expect(answer.status == 200, f"200 for {what} of {user}", _told(answer), answer.exchange)
    shown = _shows(run, human, user, keys)
    expect(shown, f"the uploaded keys of {user} from /keys/query", _shown(human, user)[user], answer.exchange)


def _shown(asker: User, *owners: User) -> dict[User, _Shown]:
    """The keys that a homeserver shows of users."""
    body: dict[str, Any] = {"device_keys": {owner.user_id: [] for owner in owners}}
    answer = asker.do("query keys", "POST", "/keys/query", json=body).json

    def public(place: str, owner: User) -> str | None:
        found = answer[place].get(owner.user_id) if isinstance(answer.get(place), dict) else None
        values = found.get("keys") if isinstance(found, dict) else None
        return next(iter(values.values()), None) if isinstance(values, dict) else None

    return {owner: _Shown(public("master_keys", owner), public("self_signing_keys", owner)) for owner in owners}


def _of(keys: CrossSigningKeys) -> _Shown:
    return _Shown(keys.master.public, keys.self_signing.public)


def _shows(run: Run, asker: User, owner: User, keys: CrossSigningKeys) -> bool:
    """Whether keys are shown, waiting for it."""
    return bool(run.eventually(lambda: _shown(asker, owner)[owner] == _of(keys) or None))


def _asks(answer: Response) -> bool:
    """Whether a call is answered with a demand for interactive authentication."""
    return answer.status == 401 and bool(answer.json.get("flows"))


def _told(answer: Response) -> str:
    return f"{answer} with flows" if "flows" in answer.json else str(answer)
