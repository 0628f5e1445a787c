"""Regular expressions of our own: a small tree, how it is written, and how it is read back.

Only what every engine reads alike (POSIX extended, Perl-like, linear-time ones) can be built. *Level 0* means the same
even as a POSIX basic regular expression; *level 1* needs an extended one. Nothing can be built that makes a
backtracking engine run away: what is repeated without a bound is a single character (:class:`Repeat`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

#: Characters that are escaped wherever they stand for themselves outside brackets.
_SPECIAL = frozenset(r".[]*^$\()|+?{}")
#: Those whose escaped form means something else in a basic regular expression.
_EXTENDED = frozenset("()|+?{}")
#: What cannot stand in brackets, because engines differ or would have to be told.
_NOT_IN_BRACKETS = frozenset(r"\[]&~^")

#: The highest bound of a repeat, and the most repetitions that nested ones may add up to.
MOST, MOST_IN_ALL = 20, 200
#: The highest bound of a repeat of more than one character.
MOST_OF_GROUPS = 4


class NotCommon(ValueError):
    """A regular expression outside the subset that every engine reads alike; the message says where."""


@dataclass(frozen=True)
class Text:
    """Characters that stand for themselves."""

    text: str

    def __str__(self) -> str:
        return "".join(f"\\{char}" if char in _SPECIAL else char for char in self.text)


@dataclass(frozen=True)
class Dot:
    """Any character."""

    def __str__(self) -> str:
        return "."


@dataclass(frozen=True)
class Bracket:
    """One character of a set: ``[a-z0-9_-]``, or one outside it."""

    items: str
    negated: bool = False

    def __post_init__(self) -> None:
        if not self.items or set(self.items) & _NOT_IN_BRACKETS or "--" in self.items:
            raise NotCommon(f"[{self.items}] is not read alike by all engines")
        if any(first > last for first, last in self.ranges):
            raise NotCommon(f"[{self.items}] has a range that runs backwards")

    def __str__(self) -> str:
        return f"[{'^' if self.negated else ''}{self.items}]"

    @cached_property
    def ranges(self) -> tuple[tuple[str, str], ...]:
        """First and last character of every range; a single character is a range of one."""
        found = re.findall(r"(.)-(.)|(.)", self.items, re.DOTALL)
        return tuple((first or single, last or single) for first, last, single in found)

    def allows(self, char: str) -> bool:
        """Whether a character is one of those meant."""
        return any(first <= char <= last for first, last in self.ranges) is not self.negated


@dataclass(frozen=True)
class Repeat:
    """Something several times: at least so often, at most so often (None: without a bound)."""

    of: Single | Group
    least: int
    most: int | None

    def __post_init__(self) -> None:
        if isinstance(self.of, Text) and len(self.of.text) != 1:
            raise NotCommon(f"{self.of} is more than one character: repeat a group")
        if self.least < 0 or (self.most is not None and not max(1, self.least) <= self.most <= MOST):
            raise NotCommon(f"the bounds {self.least} and {self.most} are none")
        if isinstance(self.of, Group) and (self.most is None or self.most > MOST_OF_GROUPS):
            raise NotCommon("only a single character may be repeated without a bound, or often")
        if self.least > MOST or self.times > MOST_IN_ALL:
            raise NotCommon(f"more than {MOST_IN_ALL} repetitions in all")

    @property
    def times(self) -> int:
        """How many repetitions engines that unroll them make of it."""
        inner = max((_times(parts) for parts in self.of.branches), default=1) if isinstance(self.of, Group) else 1
        return inner * max(self.most or 1, self.least)

    def __str__(self) -> str:
        short = {(0, None): "*", (1, None): "+", (0, 1): "?"}.get((self.least, self.most))
        if short is None:
            most = "" if self.most is None else str(self.most)
            short = f"{{{self.least}}}" if self.most == self.least else f"{{{self.least},{most}}}"
        return f"{self.of}{short}"


@dataclass(frozen=True)
class Group:
    """One of several alternatives, in parentheses."""

    branches: tuple[tuple[Node, ...], ...]

    def __post_init__(self) -> None:
        _check_branches(self.branches)

    def __str__(self) -> str:
        return f"({'|'.join(''.join(map(str, parts)) for parts in self.branches)})"


Single = Text | Dot | Bracket
Node = Single | Repeat | Group


@dataclass(frozen=True)
class Branch:
    """One alternative of a whole regular expression, with its anchors."""

    parts: tuple[Node, ...]
    start: bool = False
    end: bool = False

    def __str__(self) -> str:
        return f"{'^' if self.start else ''}{''.join(map(str, self.parts))}{'$' if self.end else ''}"


@dataclass(frozen=True)
class Regex:
    """A whole regular expression."""

    branches: tuple[Branch, ...]

    def __post_init__(self) -> None:
        _check_branches(tuple(each.parts for each in self.branches))

    def __str__(self) -> str:
        return "|".join(map(str, self.branches))

    @property
    def level(self) -> int:
        """0: means the same as a basic regular expression too; 1: only as an extended one."""
        return int(len(self.branches) > 1 or any(_extended(node) for node in self.nodes()))

    def nodes(self) -> Iterator[Node]:
        """Every node, those within others too."""
        for branch in self.branches:
            yield from _nodes(branch.parts)


def sequence(*parts: Node) -> tuple[Node, ...]:
    """Nodes one after the other, neighbouring texts joined."""
    joined: list[Node] = []
    for part in parts:
        last = joined[-1] if joined else None
        if isinstance(part, Text) and isinstance(last, Text):
            joined[-1] = Text(last.text + part.text)
        elif part != Text(""):
            joined.append(part)
    return tuple(joined)


def _check_branches(branches: Sequence[tuple[Node, ...]]) -> None:
    if not all(branches):
        raise NotCommon("an alternative is empty")


def _nodes(parts: Sequence[Node]) -> Iterator[Node]:
    for node in parts:
        yield node
        if isinstance(node, Repeat):
            yield from _nodes((node.of,))
        if isinstance(node, Group):
            for branch in node.branches:
                yield from _nodes(branch)


def _times(parts: Sequence[Node]) -> int:
    return max((node.times for node in _nodes(parts) if isinstance(node, Repeat)), default=1)


def _extended(node: Node) -> bool:
    if isinstance(node, Repeat):
        return (node.least, node.most) != (0, None)
    return isinstance(node, Group) or (isinstance(node, Text) and not _EXTENDED.isdisjoint(node.text))


# Reading


def parse(regex: str) -> Regex:
    """The tree of a regular expression of the common subset; written again it is the same text.

    :raises NotCommon: it is outside the subset.
    """
    reader = _Reader(regex)
    branches = [reader.branch()]
    while reader.take("|"):
        branches.append(reader.branch())
    if reader.rest:
        raise NotCommon(f"{regex!r}: {reader.rest[0]!r} at {reader.place} means nothing there")
    tree = Regex(tuple(branches))
    if str(tree) != regex:
        raise NotCommon(f"{regex!r} is usually written {str(tree)!r}")
    return tree


def is_common(regex: str) -> bool:
    """Whether a regular expression is of the common subset."""
    try:
        parse(regex)
    except NotCommon:
        return False
    return True


class _Reader:
    def __init__(self, text: str) -> None:
        self.text = text
        self.place = 0

    @property
    def rest(self) -> str:
        return self.text[self.place :]

    def take(self, expected: str) -> bool:
        found = self.rest.startswith(expected)
        self.place += len(expected) if found else 0
        return found

    def branch(self) -> Branch:
        start = self.take("^")
        parts = self.parts()
        return Branch(parts, start, self.take("$"))

    def parts(self) -> tuple[Node, ...]:
        parts: list[Node] = []
        while self.rest and self.rest[0] not in "|)$":
            parts.append(self.repeated(self.single()))
        return sequence(*parts)

    def single(self) -> Single | Group:
        char = self.rest[0]
        self.place += 1
        if char == ".":
            return Dot()
        if char == "(":
            branches = [self.parts()]
            while self.take("|"):
                branches.append(self.parts())
            if not self.take(")"):
                raise NotCommon(f"{self.text!r}: a parenthesis is not closed")
            return Group(tuple(branches))
        if char == "[":
            return self.bracket()
        if char == "\\":
            escaped = self.rest[:1]
            self.place += 1
            if escaped not in _SPECIAL:
                raise NotCommon(f"{self.text!r}: \\{escaped} is not read alike by all engines")
            return Text(escaped)
        if char in _SPECIAL:
            raise NotCommon(f"{self.text!r}: {char!r} at {self.place - 1} means nothing there")
        return Text(char)

    def bracket(self) -> Bracket:
        negated = self.take("^")
        items, closed, _ = self.rest.partition("]")
        if not closed:
            raise NotCommon(f"{self.text!r}: a bracket is not closed")
        self.place += len(items) + 1
        return Bracket(items, negated)

    def repeated(self, node: Single | Group) -> Node:
        found = re.match(r"[*+?]|\{(\d+)(?:(,)(\d*))?\}", self.rest)
        if found is None:
            return node
        self.place += found.end()
        if found[1] is None:
            least, most = {"*": (0, None), "+": (1, None), "?": (0, 1)}[found[0]]
            return Repeat(node, least, most)
        bound = int(found[3]) if found[3] else None
        return Repeat(node, int(found[1]), bound if found[2] else int(found[1]))
