"""IDs for regular expressions: members, what only just is one, what only just is none, and what parsers stumble over.

All choices are made by a `pick`, a function from a lowest and a highest number to one between them: Hypothesis's, which
shrinks towards the lowest, or a random generator's. Whatever is drawn, the oracle judges it: nothing here has to know
whether an ID is a member in the end.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any

from conformance.namespaces.oracle import SIGILS, Kind
from conformance.namespaces.shapes import Bracket, Dot, Group, Node, Regex, Repeat, Text

Pick = Callable[[int, int], int]

#: Bytes of the longest ID (CS appendices).
LONGEST = 255

#: Total lengths at which implementations like to cut, in bytes.
LENGTHS = (64, 65, 128, 254, 255)

#: What stands for "any character", the simplest first; half of it is what parsers of URLs and YAML care about.
_ANY: dict[Kind, str] = {"users": "a0-z.9_=m/+", "aliases": "a0-z.9_=m/+é%?&~"}

#: Everything that may stand in the localpart of a user ID (CS appendices: User identifiers).
_USER_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789-._=/+"

#: What turns members into near misses, in the order in which they are tried.
_WILD: dict[Kind, str] = {"users": "ax0-.+/=_", "aliases": "ax0-.+/=_#é% ?"}

#: How many more than its least something is repeated that has no bound.
_UNBOUNDED = 3

_USER_ID = re.compile(r"@[a-z0-9._=/+-]+:[^:].*", re.DOTALL)


def is_legal(kind: Kind, identifier: str, server_name: str) -> bool:
    """Whether an ID of this server can be asked for by anybody: its grammar, its length, and no name that homeservers
    keep for guests (digits only) or for appservices' conventions (an underscore first).
    """
    localpart, colon, domain = identifier[1:].partition(":")
    if not colon or domain != server_name or not localpart or len(identifier.encode()) > LONGEST:
        return False
    if kind == "aliases":
        return identifier.startswith("#") and "\0" not in localpart
    return bool(_USER_ID.fullmatch(identifier)) and not localpart.isdigit() and not localpart.startswith("_")


class Slip(StrEnum):
    """How a sampled text misses its regular expression by as little as possible."""

    NONE = "none"
    OVER = "one repetition too many"
    UNDER = "one repetition too few"
    FOREIGN = "a character that brackets do not allow"


class Sampler:
    """Draws texts that a regular expression matches, or would if it were not for one slip."""

    def __init__(
        self,
        kind: Kind,
        pick: Pick,
        slip: Slip = Slip.NONE,
        *,
        branch: Pick | None = None,
        times: Callable[[Repeat], int] | None = None,
        prefer: str = "",
    ) -> None:
        """A sampler for one text.

        :param slip: a slip to make, once.
        :param branch: chooses among alternatives; `pick` if not given.
        :param times: how often something is repeated; between its bounds if not given.
        :param prefer: characters to choose where they are allowed, the best first.
        """
        self.kind: Kind = kind
        self.pick = pick
        self.slip = slip
        self.branch = branch or pick
        self.times = times or self._picked_times
        self.prefer = prefer

    def text(self, regex: Regex) -> str:
        """A text for one of the regular expression's branches."""
        branch = regex.branches[self.branch(0, len(regex.branches) - 1)]
        return self._parts(branch.parts)

    def _parts(self, parts: Sequence[Node]) -> str:
        return "".join(self._node(node) for node in parts)

    def _node(self, node: Node) -> str:
        if isinstance(node, Text):
            return node.text
        if isinstance(node, Dot):
            return self._char(_ANY[self.kind])
        if isinstance(node, Bracket):
            return self._char(self._allowed(node))
        if isinstance(node, Repeat):
            return "".join(self._node(node.of) for _ in range(self._slipping_times(node)))
        return self._parts(node.branches[self.branch(0, len(node.branches) - 1)])

    def _char(self, chars: str) -> str:
        preferred = next((char for char in self.prefer if char in chars), None)
        return preferred or chars[self.pick(0, len(chars) - 1)]

    def _picked_times(self, node: Repeat) -> int:
        return self.pick(node.least, node.least + _UNBOUNDED if node.most is None else node.most)

    def _slipping_times(self, node: Repeat) -> int:
        if self.slip is Slip.OVER and node.most is not None:
            self.slip = Slip.NONE
            return node.most + 1
        if self.slip is Slip.UNDER and node.least > 0:
            self.slip = Slip.NONE
            return node.least - 1
        return self.times(node)

    def _allowed(self, node: Bracket) -> str:
        """The ends of its ranges, where mistakes show, and a character from the middle of each; or foreign ones."""
        if self.slip is Slip.FOREIGN:
            foreign = "".join(char for char in _ANY[self.kind] if not node.allows(char))
            if foreign:
                self.slip = Slip.NONE
                return foreign
        if node.negated:
            return "".join(char for char in _ANY[self.kind] if node.allows(char)) or "a"
        found: dict[str, None] = {}
        for first, last in node.ranges:
            found |= dict.fromkeys((first, chr((ord(first) + ord(last)) // 2), last))
        return "".join(found)


def _lowest(low: int, high: int) -> int:
    return low


def _highest(low: int, high: int) -> int:
    return high


def _once(node: Repeat) -> int:
    """As seldom as possible, but not never."""
    return max(node.least, 1)


def _most(node: Repeat) -> int:
    return node.least + _UNBOUNDED if node.most is None else node.most


def _whole(kind: Kind, text: str, server_name: str) -> str:
    """A sampled text as an ID of this server: its sigil and its localpart, whatever was drawn for the rest."""
    sigil = SIGILS[kind]
    localpart = text.removeprefix(sigil).partition(":")[0]
    if kind == "users":
        localpart = "".join(char for char in localpart.lower() if char in _USER_ALPHABET)
    return f"{sigil}{localpart}:{server_name}"


def _filled(kind: Kind, regex: Regex, server_name: str, length: int, pick: Pick) -> str:
    """A member as long as it can be without being longer than so many bytes."""

    def with_times(times: int) -> str:
        def repeated(node: Repeat) -> int:
            return max(node.least, times) if node.most is None else node.least

        text = Sampler(kind, _lowest, branch=pick, times=repeated).text(regex)
        return _whole(kind, text, server_name)

    shortest, longer = len(with_times(1).encode()), len(with_times(2).encode())
    step = longer - shortest
    return with_times(max(1 + (length - shortest) // step, 0)) if step else with_times(1)


# The ones that tell most


def telling(kind: Kind, regex: Regex, server_name: str) -> dict[str, str]:
    """The IDs that tell most about how a regular expression is read, by what they are about."""

    def sampled(slip: Slip = Slip.NONE, **how: Any) -> str:
        return _whole(kind, Sampler(kind, _lowest, slip, **how).text(regex), server_name)

    nodes = list(regex.nodes())
    repeats = [node for node in nodes if isinstance(node, Repeat)]
    brackets = [node for node in nodes if isinstance(node, Bracket)]
    ends = "".join(last for node in brackets if not node.negated for first, last in node.ranges if first != last)
    signs = "".join(str(node) for node in nodes if isinstance(node, Bracket | Text))
    marks = sampled(times=_once)
    # Where anything may follow, a cut at a slash or after so many bytes does not show.
    closed = regex.branches[0].parts[-1] != Repeat(Dot(), 0, None)
    found = {"the shortest": sampled()}
    if len(regex.branches) > 1 or any(isinstance(node, Group) for node in nodes):
        found["the last alternative"] = sampled(branch=_highest, times=_once)
    if any(node.most is not None for node in repeats):
        found["the most repetitions"] = sampled(times=_most)
        found["one repetition more"] = sampled(Slip.OVER)
    if any(node.least > 0 for node in repeats):
        found["one repetition less"] = sampled(Slip.UNDER)
    if brackets:
        found["a foreign character"] = sampled(Slip.FOREIGN, times=_once)
    if ends:
        found["the end of a range"] = sampled(times=_once, prefer=ends)
    if "+" in signs:
        found["a plus"] = sampled(branch=_highest, times=_once, prefer="+")
    if closed and (any(node.allows("/") for node in brackets) or any(isinstance(node, Dot) for node in nodes)):
        found["a slash"] = sampled(times=_once, prefer="/")
    if closed:
        found["more behind a slash"] = marks.replace(":", "/x:", 1)
    if "." in marks.partition(":")[0]:
        found["no dot"] = marks.partition(":")[0].replace(".", "x", 1) + marks[marks.index(":") :]
    if closed and any(node.most is None for node in repeats):
        found["very long"] = _filled(kind, regex, server_name, LONGEST - 1, _lowest)
    found |= left_open(kind, regex, found["the shortest"])
    return {what: each for what, each in found.items() if is_legal(kind, each, server_name)}


#: The sorts of IDs that are likely to be left open.
OPEN = ("what follows", "small letters", "another case", "a second sigil")


def left_open(kind: Kind, regex: Regex, member: str) -> dict[str, str]:
    """IDs that are likely to be left open: they show how a homeserver reads regular expressions."""
    sigil, localpart, domain = member[0], *member[1:].split(":", 1)
    found = {}
    if not isinstance(regex.branches[0].parts[-1], Repeat) and not str(regex).endswith(domain.replace(".", r"\.")):
        found[OPEN[0]] = f"{sigil}{localpart}y:{domain}"
    if str(regex) != str(regex).lower():
        found[OPEN[1]] = member.lower()
    if kind == "aliases":
        found[OPEN[2]] = f"{sigil}{localpart.swapcase()}:{domain}"
        found[OPEN[3]] = f"{sigil}{sigil}{localpart}:{domain}"
    return found


# Those that are drawn


def _member(kind: Kind, regex: Regex, server_name: str, pick: Pick) -> str:
    return _whole(kind, Sampler(kind, pick).text(regex), server_name)


def _full(kind: Kind, regex: Regex, server_name: str, pick: Pick) -> str:
    """The last branch, the most repetitions, the last character of every set."""
    return _whole(kind, Sampler(kind, _highest).text(regex), server_name)


def _long(kind: Kind, regex: Regex, server_name: str, pick: Pick) -> str:
    """A member filled up to a length at which implementations like to cut."""
    return _filled(kind, regex, server_name, LENGTHS[pick(0, len(LENGTHS) - 1)], pick)


def _told(kind: Kind, regex: Regex, server_name: str, pick: Pick) -> str:
    """One of those that tell most."""
    ids = list(telling(kind, regex, server_name).values()) or [_member(kind, regex, server_name, pick)]
    return ids[pick(0, len(ids) - 1)]


def _slipping(slip: Slip) -> Callable[[Kind, Regex, str, Pick], str]:
    def draw(kind: Kind, regex: Regex, server_name: str, pick: Pick) -> str:
        return _whole(kind, Sampler(kind, pick, slip).text(regex), server_name)

    return draw


def _changing(change: Callable[[str, Kind, Pick], str]) -> Callable[[Kind, Regex, str, Pick], str]:
    """A member whose localpart is changed."""

    def draw(kind: Kind, regex: Regex, server_name: str, pick: Pick) -> str:
        member = _member(kind, regex, server_name, pick)
        localpart = member[1:].partition(":")[0]
        return f"{member[0]}{change(localpart, kind, pick)}:{server_name}"

    return draw


def _wild(kind: Kind, pick: Pick) -> str:
    chars = _WILD[kind]
    return chars[pick(0, len(chars) - 1)]


def _replaced(localpart: str, kind: Kind, pick: Pick) -> str:
    place = pick(0, max(len(localpart) - 1, 0))
    return localpart[:place] + _wild(kind, pick) + localpart[place + 1 :]


def _mark_replaced(localpart: str, kind: Kind, pick: Pick) -> str:
    """A letter where there was a dot, a dash or another sign: what an unescaped dot would allow."""
    marks = [place for place, char in enumerate(localpart) if not char.isalnum()]
    if not marks:
        return _replaced(localpart, kind, pick)
    place = marks[pick(0, len(marks) - 1)]
    return f"{localpart[:place]}x{localpart[place + 1 :]}"


def _inserted(localpart: str, kind: Kind, pick: Pick) -> str:
    place = pick(0, len(localpart))
    return localpart[:place] + _wild(kind, pick) + localpart[place:]


def _deleted(localpart: str, kind: Kind, pick: Pick) -> str:
    place = pick(0, max(len(localpart) - 1, 0))
    return localpart[:place] + localpart[place + 1 :]


def _prefixed(localpart: str, kind: Kind, pick: Pick) -> str:
    return _wild(kind, pick) + localpart


def _suffixed(localpart: str, kind: Kind, pick: Pick) -> str:
    return localpart + _wild(kind, pick)


def _cut(localpart: str, kind: Kind, pick: Pick) -> str:
    return localpart[: len(localpart) // 2]


def _shouted(localpart: str, kind: Kind, pick: Pick) -> str:
    return localpart.upper()


def _embedded(localpart: str, kind: Kind, pick: Pick) -> str:
    """Behind a sigil of its own where that may stand: IRC's `##channel`."""
    return f"x#{localpart}" if kind == "aliases" else f"x-{localpart}-x"


def _sigil_twice(localpart: str, kind: Kind, pick: Pick) -> str:
    return f"#{localpart}" if kind == "aliases" else f"x{localpart}"


_Draw = Callable[[Kind, Regex, str, Pick], str]

#: Ways to draw an ID: the simplest first, each as often as it is listed.
_WAYS: tuple[_Draw, ...] = (
    *(_member,) * 4,
    *(_told,) * 3,
    _full,
    _long,
    _slipping(Slip.OVER),
    _slipping(Slip.UNDER),
    _slipping(Slip.FOREIGN),
    *(_changing(_mark_replaced),) * 2,
    *(_changing(_replaced),) * 2,
    _changing(_inserted),
    *(_changing(_deleted),) * 2,
    _changing(_prefixed),
    _changing(_suffixed),
    _changing(_cut),
    _changing(_embedded),
    _changing(_sigil_twice),
)

#: What only an alias may look like.
_ALIAS_WAYS: tuple[_Draw, ...] = (*_WAYS, _changing(_shouted))


def near(kind: Kind, regex: Regex, server_name: str, pick: Pick) -> str:
    """An ID of this server in, or in the neighbourhood of, a regular expression; perhaps not a legal one."""
    ways = _WAYS if kind == "users" else _ALIAS_WAYS
    return ways[pick(0, len(ways) - 1)](kind, regex, server_name, pick)
