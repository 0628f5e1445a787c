"""ROOMDIR: published room directories of appservices (AS: Published room directories, CS: Published room directory)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from conformance.appservice.fleet import Appservice
from conformance.homeserver.client import CLIENT, NoAnswer, Response, segment
from conformance.homeserver.users import User
from conformance.requirement import requirement
from conformance.run import Run
from conformance.schemas import problems
from conformance.verdict import Inconclusive, control, expect, listing, prefer

#: Pages of a room list that are read at most.
_PAGES = 50

#: The keys that an entry of a room list must have.
_REQUIRED = ("room_id", "num_joined_members", "world_readable", "guest_can_join")


@requirement("ROOMDIR-01")
def test_an_appservice_can_publish_a_room(a: Appservice, human: User) -> None:
    """`PUT /directory/list/appservice/{network}/{room}` with the `as_token` is answered 200 and a JSON object."""
    room = a.sender.create_room()
    answers = [_put(a.sender, network, room) for network in ("meta-net", "hqp-meta")]
    works = [_is_done(answer) for answer in answers]
    exchanges = [answer.exchange for answer in answers]
    expect(any(works), "200 and {} for an appservice that publishes a room", listing(answers), *exchanges)
    prefer(works[0], "200 and {} with the instance's network_id", answers[0], exchanges[0])
    network = "meta-net" if works[0] else "hqp-meta"
    foreign = _put(a.sender, network, human.create_room())  # a homeserver may want more of those who publish
    prefer(_is_done(foreign), "200 and {} for a room that it is not in", foreign, foreign.exchange)
    ghost = a.ghost()
    answer = _put(ghost, network, ghost.create_room())
    expect(answer.status == 200, "200 for an appservice that publishes a room as a ghost", answer, answer.exchange)


@requirement("ROOMDIR-02")
def test_a_human_cannot_publish_there(run: Run, a: Appservice, human: User) -> None:
    """Only appservices may: a human is refused with 4xx, even in a room of its own, and the room is not listed."""
    directory = _directory(run, a)
    rooms = [human.create_room(), human.create_room()]
    directory.publish(rooms[1], visibility="private")
    answer = _put(human, directory.network, rooms[0])
    expect(answer.refused, "4xx for a human who publishes in an appservice's directory", answer, answer.exchange)
    directory.publish(rooms[1])
    directory.await_listed(rooms[1])
    expect(not directory.find(rooms[0]), "the human's room not listed", "it is listed", answer.exchange)


@requirement("ROOMDIR-03")
def test_a_stranger_cannot_publish_there(run: Run, a: Appservice, human: User) -> None:
    """Without a token 401 M_MISSING_TOKEN, with one that nobody has 401 M_UNKNOWN_TOKEN."""
    directory = _directory(run, a)
    room = human.create_room()
    directory.publish(room)
    for token, errcode in ((None, "M_MISSING_TOKEN"), (run.names.fresh("nobodys-token-"), "M_UNKNOWN_TOKEN")):
        path = f"{CLIENT}/directory/list/appservice/{segment(directory.network)}/{segment(room)}"
        answer = run.client.call("PUT", path, party="stranger", token=token, json={"visibility": "public"})
        right = answer.status == 401 and answer.errcode == errcode
        expect(right, f"401 {errcode} {'with' if token else 'without'} a token", answer, answer.exchange)


@requirement("ROOMDIR-04")
def test_the_main_directory_is_another(run: Run, a: Appservice, human: User) -> None:
    """A room published by an appservice only is not in the homeserver's own list, by GET or by POST."""
    directory = _directory(run, a)
    room, public = human.create_room(), human.create_room(visibility="public")
    directory.publish(room)
    directory.await_listed(room)
    for method in ("POST", "GET"):
        control(_listed(run, human, public, method), "a public room is not in the main list")
        expect(not _entry(human, room, method), f"the room not in {method} /publicRooms", "it is there")


@requirement("ROOMDIR-05", shared=True)
def test_the_directory_of_an_instance_can_be_read(run: Run, a: Appservice, human: User) -> None:
    """A public rooms request with `third_party_instance_id` lists what was published there, with the required keys."""
    directory, rooms = _directory(run, a), list[str]()
    for room in (human.create_room(), human.create_room(name="second", topic="of two")):
        published = directory.publish(room)
        _must_answer(human, third_party_instance_id=directory.instance_id)
        entry = _listed(run, human, room, third_party_instance_id=directory.instance_id)
        expect(entry, "the published room in the list of its third_party_instance_id", "no entry", published.exchange)
        required = {key: value for key, value in (entry or {}).items() if key in _REQUIRED}
        wrong = problems("public-rooms#room", required)
        expect(not wrong, "an entry with the required keys", listing(wrong))
        rooms.append(room)
    lost = [room for room in rooms if directory.find(room) is None]
    expect(not lost, "all published rooms in the list", f"{len(lost)} of {len(rooms)} missing")


@requirement("ROOMDIR-05", shared=True)
def test_the_directory_of_an_instance_has_pages(run: Run, a: Appservice, human: User) -> None:
    """With a `limit` each published room is on one of the pages of the list."""
    directory = _directory(run, a)
    rooms = [human.create_room() for _ in range(3)]
    for room in rooms:
        directory.publish(room)
    for room in rooms:
        directory.await_listed(room)
    # What earlier runs have published is there too: pages of one room where there are few.
    count = sum(len(page.json.get("chunk") or ()) for page in _pages(human, "POST", directory.query))
    paged: dict[str, Any] = {**directory.query, "limit": max(1, count // 10)}
    lost = [room for room in rooms if not _entry(human, room, **paged)]
    expect(not lost, "each room on one of the pages of the list", f"{len(lost)} of {len(rooms)} missing")


@requirement("ROOMDIR-06")
def test_all_networks_include_the_appservices(run: Run, a: Appservice, human: User) -> None:
    """With `include_all_networks` both are listed: rooms of the homeserver's own list and of appservices' lists."""
    directory = _directory(run, a)
    room, public = human.create_room(), human.create_room(visibility="public")
    directory.publish(room)
    directory.await_listed(room)
    control(_listed(run, human, public), "a public room is not in the main list")
    _must_answer(human, include_all_networks=True)
    for each, where in ((room, "an appservice's list"), (public, "the main list")):
        found = _listed(run, human, each, include_all_networks=True)
        expect(found, f"a room of {where} with include_all_networks", "it is not listed")


@requirement("ROOMDIR-07")
def test_a_published_room_can_be_withdrawn(run: Run, a: Appservice, human: User) -> None:
    """Visibility `private` takes a room off the appservice's list, and off no other place in it."""
    directory = _directory(run, a)
    rooms = [human.create_room(), human.create_room()]
    for room in rooms:
        directory.publish(room)
        directory.await_listed(room)
    answer = _put(a.sender, directory.network, rooms[0], visibility="private")
    expect(answer.status == 200, "200 for the visibility private", answer, answer.exchange)
    gone = run.eventually(lambda: directory.find(rooms[0]) is None or None)
    expect(gone, "the room gone from the list", "it is still listed", answer.exchange)
    expect(directory.find(rooms[1]), "the other room still listed", "it is gone too", answer.exchange)
    directory.publish(rooms[0])
    again = run.eventually(lambda: directory.find(rooms[0]))
    expect(again, "a room that is published again in the list again", "it is not", answer.exchange)


@requirement("ROOMDIR-08", shared=True)
def test_each_instance_of_each_appservice_has_its_list(run: Run, a: Appservice, b: Appservice, human: User) -> None:
    """What A publishes in its first network is neither in its second nor in B's, which has the same network_id."""
    rooms = [human.create_room() for _ in range(3)]
    directories = [
        _directory(run, a, "hqp-multi", "First"),
        _directory(run, a, "hqp-multi", "Second"),
        _directory(run, b, "hqp-multi", "First, of another appservice"),
    ]
    for directory, room in zip(directories, rooms, strict=True):
        directory.publish(room)
    networks = {(directory.appservice.code, directory.network) for directory in directories}
    control(len(networks) == len(directories), "the homeserver takes no network_id, so the lists cannot be told apart")
    for directory, room in zip(directories, rooms, strict=True):
        directory.await_listed(room)
    for directory, room in zip(directories, rooms, strict=True):
        foreign = [each for each in rooms if each != room and directory.find(each)]
        expect(not foreign, f"{directory} to list its own room only", f"{len(foreign)} of other lists in it")


@requirement("ROOMDIR-08", shared=True)
def test_a_room_may_be_on_several_lists(run: Run, a: Appservice, b: Appservice, human: User) -> None:
    """A room that is published on three lists is on all of them; withdrawn from one it stays on the others."""
    room = human.create_room()
    directories = [
        _directory(run, a, "hqp-multi", "First"),
        _directory(run, a, "hqp-multi", "Second"),
        _directory(run, b, "hqp-multi", "First, of another appservice"),
    ]
    for directory in directories:
        directory.publish(room)
        directory.await_listed(room)
    networks = {(directory.appservice.code, directory.network) for directory in directories}
    control(len(networks) == len(directories), "the homeserver takes no network_id, so the lists cannot be told apart")
    for directory in directories:
        expect(directory.find(room), f"the room still in {directory}, published on others too", "it is gone")
    withdrawn, *kept = directories
    withdrawn.publish(room, visibility="private")
    control(run.eventually(lambda: withdrawn.find(room) is None or None), f"the room is still in {withdrawn}")
    for directory in kept:
        expect(directory.find(room), f"the room still in {directory}, withdrawn from {withdrawn}", "it is gone")


@requirement("ROOMDIR-09")
def test_the_visibility_must_be_known(run: Run, a: Appservice, human: User) -> None:
    """A visibility that is missing or unknown is refused with 4xx, and what was listed before still is, no more."""
    directory = _directory(run, a)
    listed, unlisted = human.create_room(), human.create_room()
    directory.publish(listed)
    directory.await_listed(listed)
    directory.must_hold_several(listed, human.create_room())
    for visibility, what in (("maybe", "the visibility 'maybe'"), (None, "no visibility")):
        answers = [_put(a.sender, directory.network, room, visibility) for room in (listed, unlisted)]
        for answer in answers:
            tolerable = answer.refused or (visibility is None and answer.ok)
            expect(tolerable, f"4xx for {what}", answer, answer.exchange)
        prefer(answers[0].refused, f"4xx for {what}", answers[0], answers[0].exchange)
        later = human.create_room()
        directory.publish(later)
        directory.await_listed(later)
        expect(directory.find(listed), f"a listed room still listed after {what}", "it is gone", answers[0].exchange)
        if answers[1].refused:  # where it is accepted, it may be taken for public
            there = directory.find(unlisted)
            expect(not there, f"an unlisted room not listed after {what}", "it is listed", answers[1].exchange)


@requirement("ROOMDIR-10")
def test_the_main_directory_is_not_touched(run: Run, a: Appservice, human: User) -> None:
    """A room of the homeserver's own list stays there when an appservice takes it off its list."""
    directory = _directory(run, a)
    room = human.create_room(visibility="public")
    control(_listed(run, human, room), "a public room is not in the main list")
    directory.publish(room)
    directory.await_listed(room)
    directory.publish(room, visibility="private")
    run.eventually(lambda: directory.find(room) is None or None)
    expect(_entry(human, room), "the room in the main list as before", "it is gone")


@requirement("ROOMDIR-11")
def test_an_unknown_room_does_no_harm(run: Run, a: Appservice, human: User) -> None:
    """A room that does not exist is refused or accepted, without a server error, and the lists are as before."""
    directory = _directory(run, a)
    room, public = human.create_room(), human.create_room(visibility="public")
    directory.publish(room)
    directory.await_listed(room)
    directory.must_hold_several(room, human.create_room())
    control(_listed(run, human, public), "a public room is not in the main list")
    bodies: list[tuple[str, dict[str, Any]]] = [
        (room, {"third_party_instance_id": directory.instance_id}),
        (public, {}),
        (public, {"include_all_networks": True}),
    ]
    bodies = [(known, body) for known, body in bodies if _entry(human, known, **body)]
    for unknown in (f"!{run.names.fresh('nosuch')}:{run.server_name}", f"!{run.names.fresh('nosuch')}:other.example"):
        answer = _put(a.sender, directory.network, unknown)
        expect(answer.status == 200 or answer.refused, "200 or 4xx for an unknown room", answer, answer.exchange)
    for known, body in bodies:
        page = human.call("POST", "/publicRooms", json=body)
        expect(page.status == 200, f"200 for POST /publicRooms {body}", page, page.exchange)
        expect(_entry(human, known, **body), "the known room listed as before", "it is not", page.exchange)


def _is_done(answer: Response) -> bool:
    return answer.status == 200 and isinstance(answer.value, dict)


class _Directory:
    """The published rooms of one instance of an appservice's protocol."""

    def __init__(self, run: Run, appservice: Appservice, protocol: str, instance: dict[str, Any]) -> None:
        self.run = run
        self.appservice = appservice
        self.instance_id: str = instance["instance_id"]
        #: How the path names it: by the network_id or, where the first publication is refused so, by the protocol.
        self.network: str = str(instance.get("network_id", protocol))
        self._protocol: str | None = protocol

    def __str__(self) -> str:
        return f"the list {self.instance_id!r} of {self.appservice}"

    @property
    def query(self) -> dict[str, Any]:
        """What asks for its rooms."""
        return {"third_party_instance_id": self.instance_id}

    def publish(self, room: str, visibility: str = "public") -> Response:
        """Publish a room in it, or withdraw it."""
        try:
            answer = _put(self.appservice.sender, self.network, room, visibility)
            if answer.refused and self._protocol is not None:
                self.network = self._protocol
                answer = _put(self.appservice.sender, self.network, room, visibility)
        except NoAnswer as error:
            reason = f"set-up: {self.appservice} could not set {visibility}: {error}"
            raise Inconclusive(reason, error.exchange) from error
        self._protocol = None
        control(answer.ok, f"set-up: {self.appservice} could not set {visibility}: {answer}", answer.exchange)
        return answer

    def find(self, room: str) -> dict[str, Any] | None:
        """A room's entry in it, if there is one."""
        return _entry(self.run.humans[0], room, third_party_instance_id=self.instance_id)

    def await_listed(self, room: str) -> None:
        """Wait for a room to be listed, as set-up or control."""
        control(self.run.eventually(lambda: self.find(room)), f"a published room is not listed in {self}")

    def must_hold_several(self, room: str, another: str) -> None:
        """The control: a room that is listed stays so when another one is published."""
        self.publish(another)
        self.await_listed(another)
        control(self.find(room), f"a second room takes the first off {self} (ROOMDIR-05)")


def _directory(
    run: Run, appservice: Appservice, protocol: str = "hqp-meta", desc: str = "The only network"
) -> _Directory:
    """The directory of the instance of that description."""
    human = run.humans[0]
    for path in ("/thirdparty/protocols", f"/thirdparty/protocol/{segment(protocol)}"):
        answer: dict[str, Any] = {}
        with suppress(NoAnswer):  # that is 3PN's
            answer = human.call("GET", path).json
        metadata = answer.get(protocol) if path.endswith("s") else answer
        for instance in (metadata or {}).get("instances") or ():
            if instance.get("desc") == desc and isinstance(instance.get("instance_id"), str):
                return _Directory(run, appservice, protocol, instance)
    raise Inconclusive(f"set-up: the homeserver tells no instance_id of the instance {desc!r} of {protocol}")


def _put(user: User, network: str, room: str, visibility: str | None = "public") -> Response:
    path = f"/directory/list/appservice/{segment(network)}/{segment(room)}"
    return user.call("PUT", path, json={} if visibility is None else {"visibility": visibility})


def _listed(run: Run, reader: User, room: str, method: str = "POST", **body: Any) -> dict[str, Any] | None:
    """A room's entry in a list of public rooms, T_deliver later at most."""
    return run.eventually(lambda: _entry(reader, room, method, **body))


def _must_answer(reader: User, **body: Any) -> None:
    """A list of public rooms is judged, not only read: it has to be answered."""
    page = reader.call("POST", "/publicRooms", json=body)
    expect(page.ok, f"2xx for POST /publicRooms {body}", page, page.exchange)


def _entry(reader: User, room: str, method: str = "POST", **body: Any) -> dict[str, Any] | None:
    """A room's entry in a list of public rooms, looked for on all its pages."""
    for page in _pages(reader, method, body):
        for entry in page.json.get("chunk") or ():
            if entry.get("room_id") == room:
                found: dict[str, Any] = entry
                return found
    return None


def _pages(reader: User, method: str, body: dict[str, Any]) -> Iterator[Response]:
    since: dict[str, Any] = {}
    for _ in range(_PAGES):
        options: dict[str, Any] = {"json": body | since} if method == "POST" else {"query": since}
        page = reader.do("read a list of public rooms", method, "/publicRooms", **options)
        yield page
        following = page.json.get("next_batch")
        if not following or not page.json.get("chunk"):
            return
        since = {"since": following}
    raise Inconclusive(f"the list of public rooms has more than {_PAGES} pages", page.exchange)
