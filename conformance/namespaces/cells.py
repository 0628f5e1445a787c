"""The namespaces of the fuzz registrations F1, F2 and F3, drawn from a seed.

A *cell* is one to three entries about the same names, perhaps of two appservices. All entries of a cell contain a tag
of fixed width that no other cell has, so that cells do not disturb each other however a homeserver reads regular
expressions, and hundreds of them can be loaded at once. Every seed has the same mixture of shapes.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from conformance.appservice.registration import Namespace, Registration
from conformance.namespaces.oracle import SIGILS, Entry, Kind, tag_of
from conformance.namespaces.shapes import (
    Bracket,
    Branch,
    Dot,
    Group,
    Node,
    Regex,
    Repeat,
    Text,
    is_common,
    parse,
    sequence,
)
from conformance.schemas import data_dir

#: The appservices whose namespaces are drawn; the last has no url.
CODES = ("F1", "F2", "F3")

#: The first number of a tag: user IDs and aliases have different ones, since lists that a homeserver mixes up are the
#: subject of NSALIAS-15.
_FIRST: dict[Kind, int] = {"users": 0, "aliases": 500}


#: What is added to it for permanent cells.
_PERMANENT = 400


@dataclass(frozen=True)
class Cell:
    """Entries about the same names."""

    kind: Kind
    tag: str
    entries: tuple[Entry, ...]

    @cached_property
    def regexes(self) -> tuple[Regex, ...]:
        """The trees of its entries' regular expressions."""
        return tuple(parse(entry.namespace.regex) for entry in self.entries)

    @property
    def size(self) -> tuple[int, int]:
        """How complicated it is; counterexamples are shrunk towards simple cells."""
        return len(self.entries), sum(len(entry.namespace.regex) for entry in self.entries)

    @property
    def obscurity(self) -> int:
        """0: what is exclusive is so whatever the other entries say; 1: one of the same appservice overlaps; 2: nothing
        is exclusive.
        """
        exclusive = {entry.owner for entry in self.entries if entry.exclusive}
        if not exclusive:
            return 2
        return int(any(entry.owner in exclusive and not entry.exclusive for entry in self.entries))


def cells_of(registrations: Iterable[Registration], kind: Kind) -> list[Cell]:
    """The cells in the fuzz registrations that a homeserver has loaded, the simplest first.

    The files say it all: whatever seed they were drawn from, and entries that were added by hand. Entries without a
    tag or outside the common subset are judged like all others, but no IDs are drawn for them.
    """
    found: dict[str, list[Entry]] = {}
    for each in registrations:
        if each.code not in CODES:
            continue
        for index, namespace in enumerate((each.users if kind == "users" else each.aliases) or ()):
            tag = tag_of(namespace.regex)
            if tag is not None and is_common(namespace.regex):
                found.setdefault(tag, []).append(Entry(each.code, index, namespace))
    cells = [Cell(kind, tag, tuple(entries)) for tag, entries in found.items()]
    return sorted(cells, key=lambda cell: (cell.size, cell.tag))


# Shapes

_Shape = Callable[[random.Random, "Frame"], tuple[Branch, ...]]


@dataclass(frozen=True)
class Frame:
    """What every regular expression of a cell has: sigil and tag first, the server name last."""

    kind: Kind
    tag: str
    server_name: str

    @property
    def head(self) -> Text:
        """Sigil and tag."""
        return Text(SIGILS[self.kind] + self.tag)

    @property
    def domain(self) -> Text:
        """The server name after its colon."""
        return Text(f":{self.server_name}")

    def branch(self, *parts: Node, start: bool = False, end: bool = False) -> tuple[Branch, ...]:
        """A regular expression without alternatives."""
        return (Branch(sequence(self.head, *parts), start, end),)


_REST = Repeat(Dot(), 0, None)
_LETTERS = ("a-z", "a-z0-9", "b-y", "a-f0-9", "a-z0-9_-", "a-z0-9._=/+-")
_AWKWARD = ("a-z+", "a-z/", "+/=", "a-z0-9+/", "0-9+.-")


def _tail(rng: random.Random, frame: Frame) -> tuple[Node, ...]:
    """How it ends: at the server name, or open."""
    return rng.choice(((frame.domain,), (_REST,), (_REST, frame.domain), (frame.domain,)))


def _prefix(rng: random.Random, frame: Frame) -> tuple[Branch, ...]:
    return frame.branch(Text(rng.choice("-_=")), _REST)


def _full(rng: random.Random, frame: Frame) -> tuple[Branch, ...]:
    return frame.branch(Text(rng.choice(("-", "_", ".", "=.", ""))), _REST, frame.domain)


def _anchored(rng: random.Random, frame: Frame) -> tuple[Branch, ...]:
    tail: tuple[Node, ...] = rng.choice(((_REST,), (_REST, frame.domain)))
    return frame.branch(Text("-"), *tail, start=True, end=True)


def _dotted(rng: random.Random, frame: Frame) -> tuple[Branch, ...]:
    return frame.branch(Text("." + rng.choice(("x", "net-", "a.b"))), *_tail(rng, frame))


def _bracket(rng: random.Random, frame: Frame) -> tuple[Branch, ...]:
    bracket = Repeat(Bracket(rng.choice(_LETTERS)), 0, None)
    return frame.branch(Text("-"), bracket, frame.domain)


def _awkward(rng: random.Random, frame: Frame) -> tuple[Branch, ...]:
    # A letter before the set: it may be empty, and the server name follows it at once.
    return frame.branch(Text("-"), Bracket("a-z"), Repeat(Bracket(rng.choice(_AWKWARD)), 0, None), frame.domain)


def _negated(rng: random.Random, frame: Frame) -> tuple[Branch, ...]:
    return frame.branch(Text("-"), Repeat(Bracket(rng.choice((":", "0-9:", "a-m:/")), True), 0, None), frame.domain)


def _closed(rng: random.Random, frame: Frame) -> tuple[Branch, ...]:
    """A single name."""
    return frame.branch(Text(rng.choice(("bot", "-bot", ".bot", "_a-b"))), frame.domain)


def _cropped(rng: random.Random, frame: Frame) -> tuple[Branch, ...]:
    """One that does not say what follows: it is open whether anything may."""
    return frame.branch(Text(rng.choice(("-ab", "_x"))))


def _capital(rng: random.Random, frame: Frame) -> tuple[Branch, ...]:
    """One in capitals: it is open whether they cover small letters."""
    return (Branch(sequence(Text(frame.head.text.upper()), Text("-"), _REST)),)


def _counted(rng: random.Random, frame: Frame) -> tuple[Branch, ...]:
    least, most = rng.choice(((3, 3), (2, 4), (1, 6), (0, 3), (8, 20)))
    of = rng.choice((Bracket("0-9"), Bracket("a-z"), Text("x")))
    return frame.branch(Text("-"), Repeat(of, least, most), frame.domain)


def _some(rng: random.Random, frame: Frame) -> tuple[Branch, ...]:
    return frame.branch(Text("-"), Repeat(Bracket(rng.choice(_LETTERS + _AWKWARD)), 1, None), *_tail(rng, frame))


def _alternatives(rng: random.Random, frame: Frame) -> tuple[Branch, ...]:
    words = rng.sample(("irc", "signal", "bot", "x.y", "gw-2"), rng.randint(2, 3))
    return frame.branch(Text("-"), Group(tuple((Text(word),) for word in words)), *_tail(rng, frame))


def _optional(rng: random.Random, frame: Frame) -> tuple[Branch, ...]:
    group = Group(((Text("-a"), Bracket("0-9")), (Text("+b"),)))
    return frame.branch(Repeat(group, 0, rng.choice((1, 3))), frame.domain)


def _branched(rng: random.Random, frame: Frame) -> tuple[Branch, ...]:
    """Alternatives of the whole; all of them end in the server name."""
    words = rng.sample(("-irc", "_bot", ".x", "=z"), 2)
    return tuple(Branch(sequence(frame.head, Text(word), _REST, frame.domain)) for word in words)


#: One of each for every seed: half of them mean the same as basic regular expressions.
_SHAPES: tuple[_Shape, ...] = (
    _prefix,
    _full,
    _alternatives,
    _awkward,
    _counted,
    _bracket,
    _dotted,
    _branched,
    _closed,
    _counted,
    _anchored,
    _optional,
    _full,
    _some,
    _negated,
    _alternatives,
    _awkward,
    _counted,
    _cropped,
    _branched,
    _dotted,
    _some,
    _bracket,
    _optional,
    _bracket,
    _anchored,
    _cropped,
    _capital,
)


# Cells of a seed


@dataclass(frozen=True)
class Draft:
    """An entry before it stands in a file: whose, exclusive or not, its regular expression."""

    owner: str
    exclusive: bool
    regex: str


def drawn(seed: int, kind: Kind, server_name: str) -> Iterator[list[Draft]]:
    """The cells of a seed; the entries of each in the order in which they stand in their files."""
    rng = random.Random(f"{seed} {kind}")
    number = _FIRST[kind]

    def frame() -> Frame:
        nonlocal number
        number += 1
        return Frame(kind, f"hqf{number:03}", server_name)

    def owner() -> str:
        return CODES[rng.choices((0, 1, 2), (5, 4, 2))[0]]

    for shape in _SHAPES:  # exclusive, alone
        yield [Draft(owner(), True, _written(shape(rng, frame())))]
    for shape in rng.sample(_SHAPES, 6):  # not exclusive, alone
        yield [Draft(owner(), False, _written(shape(rng, frame())))]
    narrow = [shape for shape in _SHAPES if shape not in (_cropped, _capital)]
    for number_of, shape in enumerate(rng.sample(narrow, 6)):  # an exclusive entry within one that is not, both orders
        within, whose = frame(), owner()
        pair = [Draft(whose, False, _written(_broad(within))), Draft(whose, True, _written(shape(rng, within)))]
        yield pair if number_of % 2 else pair[::-1]
    for number_of, shape in enumerate(rng.sample(narrow, 8)):  # the same, of two appservices
        within, (one, other) = frame(), rng.sample(CODES, 2)
        pair = [Draft(one, False, _written(_broad(within))), Draft(other, True, _written(shape(rng, within)))]
        yield pair if number_of % 2 else pair[::-1]
    for shape in rng.sample(narrow, 3):  # shared by two
        within, (one, other) = frame(), rng.sample(CODES[:2], 2)
        yield [Draft(one, False, _written(_broad(within))), Draft(other, False, _written(shape(rng, within)))]
    for shape in rng.sample(narrow, 2):  # claimed by two: nobody says whose it is
        within, (one, other) = frame(), rng.sample(CODES, 2)
        yield [Draft(one, True, _written(_broad(within))), Draft(other, True, _written(shape(rng, within)))]


def permanent(kind: Kind, server_name: str) -> Iterator[list[Draft]]:
    """The cells of every seed: counterexamples of earlier runs, from `fixtures/namespaces/permanent.json`."""
    path = data_dir("fixtures") / "namespaces" / "permanent.json"
    cells = [cell for cell in json.loads(path.read_text(encoding="utf-8")) if cell["kind"] == kind]
    for number, cell in enumerate(cells, _FIRST[kind] + _PERMANENT):
        filled = {"{tag}": f"hqf{number:03}", "{server_name}": str(Text(server_name))}
        drafts = []
        for entry in cell["entries"]:
            regex = entry["regex"]
            for name, text in filled.items():
                regex = regex.replace(name, text)
            drafts.append(Draft(entry["owner"], entry["exclusive"], regex))
        yield drafts


def _broad(frame: Frame) -> tuple[Branch, ...]:
    return frame.branch(_REST)


def _written(branches: tuple[Branch, ...]) -> str:
    return str(Regex(branches))


def namespaces(seed: int, server_name: str) -> dict[tuple[str, Kind], tuple[Namespace, ...]]:
    """The entries of each fuzz registration, by its code and the list that they stand in."""
    found: dict[tuple[str, Kind], list[Namespace]] = {}
    kinds: tuple[Kind, ...] = ("users", "aliases")
    for kind in kinds:
        for cell in (*drawn(seed, kind, server_name), *permanent(kind, server_name)):
            for draft in cell:
                found.setdefault((draft.owner, kind), []).append(Namespace(draft.regex, draft.exclusive))
    return {key: tuple(entries) for key, entries in found.items()}
