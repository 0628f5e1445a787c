"""Regular expressions that mean the same everywhere: written, read back, and proved with two other engines."""

from __future__ import annotations

import ctypes
import ctypes.util
import re
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conformance.namespaces.cells import cells_of
from conformance.namespaces.shapes import Bracket, Dot, Group, NotCommon, Repeat, Text, is_common, parse
from conformance.namespaces.worlds import worlds
from tests.namespaces.drawing import KINDS, ids, registrations

#: Pairs of a regular expression and an ID on which engines are compared.
PAIRS = 50_000

REGEXES = sorted(
    {
        entry.namespace.regex
        for seed in range(25)
        for kind in KINDS
        for cell in cells_of(registrations(seed), kind)
        for entry in cell.entries
    }
)


@pytest.mark.parametrize(
    ("regex", "level"),
    [
        ("@_irc_.*", 0),
        (r"@whatsapp_.*:example\.org", 0),
        (r"^@whatsapp_.*:example\.org$", 0),
        ("#[a-z0-9._=/+-]*x", 0),
        ("@[^a-m:/].", 0),
        ("@a-[0-9]{3}", 1),
        ("@a-[0-9]{3,}", 1),
        ("@a-x{0,4}", 1),
        ("@(irc|signal)-.+", 1),
        ("@a-b?|@b-.*", 1),
        (r"@a\+b", 1),
        (r"@a:\[::1\]:8448", 0),
    ],
)
def test_what_is_common_is_read_and_written_again(regex: str, level: int) -> None:
    assert str(parse(regex)) == regex
    assert parse(regex).level == level


@pytest.mark.parametrize(
    "regex",
    [
        "(a|)x", "()", "a**", "a{,3}", "a{3,2}", "a{1,1001}", "a{0,}", "[[:digit:]]", "[a&&b]", r"[\.a]", r"\d", r"\-",
        "(?:a)", "(a+)+b", "(ab)*", "(a{9}){9}", "a)", "(a", "[a", "*", "a{b}", "[z-a]", ".*?", "a^b", "a$b", "|a",
    ],
)  # fmt: skip
def test_what_is_not_common_is_refused(regex: str) -> None:
    assert not is_common(regex)
    with pytest.raises(NotCommon):
        parse(regex)


def test_nothing_can_be_built_that_runs_away() -> None:
    group = Group(((Text("a"),), (Dot(),)))
    nested = Group(((Repeat(Dot(), 0, 20), Text("b")),))
    for of, most in ((group, None), (group, 5), (Text("ab"), 1), (Dot(), 21), (Group(((Repeat(nested, 0, 4),),)), 4)):
        with pytest.raises(NotCommon):
            Repeat(of, 0, most)
    with pytest.raises(NotCommon):
        Bracket("a-z--9")


@given(st.sampled_from(KINDS).flatmap(worlds))
@settings(max_examples=300, deadline=None)
def test_every_regex_that_is_drawn_is_common(world: object) -> None:
    for _, entry in world.entries:  # type: ignore[attr-defined]
        assert str(parse(entry.regex)) == entry.regex
        re.compile(entry.regex)


def test_half_of_what_is_drawn_is_basic() -> None:
    levels = [parse(regex).level for regex in REGEXES]
    assert 0.4 < levels.count(0) / len(levels) < 0.8


# Other engines

Matches = Callable[[str, str], tuple[bool, bool, bool]]


def python(regex: str, identifier: str) -> tuple[bool, bool, bool]:
    """Whole, from the start, anywhere."""
    pattern = re.compile(regex)
    return bool(pattern.fullmatch(identifier)), bool(pattern.match(identifier)), bool(pattern.search(identifier))


def compared(other: Matches, regexes: list[str]) -> int:
    """How many pairs were compared; all must be alike."""
    count = 0
    pool = [each for seed in range(8) for kind in KINDS for each in ids(seed, kind, 120)]
    by_tag: dict[str, list[str]] = {}
    for identifier in pool:
        by_tag.setdefault(identifier[1:7].lower(), []).append(identifier)
    for number, regex in enumerate(regexes):
        near = by_tag.get(re.sub(r"[\^@#]", "", regex)[:6].lower(), [])[:60]
        for identifier in near + pool[number % 7 :: 40]:
            assert other(regex, identifier) == python(regex, identifier), (regex, identifier)
            count += 1
    return count


def test_a_linear_time_engine_agrees() -> None:
    re2 = pytest.importorskip("re2", exc_type=ImportError)

    def matches(regex: str, identifier: str) -> tuple[bool, bool, bool]:
        pattern = re2.compile(regex)
        return bool(pattern.fullmatch(identifier)), bool(pattern.match(identifier)), bool(pattern.search(identifier))

    assert compared(matches, REGEXES) >= PAIRS


class Posix:
    """The C library's `regcomp` and `regexec`."""

    EXTENDED = 1

    def __init__(self, flags: int) -> None:
        self.flags = flags
        self.library = ctypes.CDLL(ctypes.util.find_library("c"))
        self.compiled: dict[str, ctypes.Array[ctypes.c_char]] = {}

    def matches(self, regex: str, identifier: str) -> tuple[bool, bool, bool]:
        """Whole, from the start, anywhere; POSIX wants the longest of the leftmost matches."""
        if regex not in self.compiled:
            self.compiled[regex] = ctypes.create_string_buffer(256)
            assert self.library.regcomp(self.compiled[regex], regex.encode(), self.flags) == 0, regex
        found = (ctypes.c_int * 2)()
        text = identifier.encode()
        if self.library.regexec(self.compiled[regex], text, ctypes.c_size_t(1), found, 0):
            return False, False, False
        return found[0] == 0 and found[1] == len(text), found[0] == 0, True


@pytest.fixture(scope="module")
def glibc() -> None:
    try:
        ctypes.CDLL(ctypes.util.find_library("c")).gnu_get_libc_version  # noqa: B018
    except (AttributeError, OSError, TypeError):
        pytest.skip("the layout of regex_t is known for the GNU C library only")


@pytest.mark.usefixtures("glibc")
def test_the_c_library_agrees_on_extended_regexes() -> None:
    assert compared(Posix(Posix.EXTENDED).matches, REGEXES) >= PAIRS


@pytest.mark.usefixtures("glibc")
def test_the_c_library_agrees_on_basic_regexes_where_they_are_said_to_be_the_same() -> None:
    assert compared(Posix(0).matches, [regex for regex in REGEXES if parse(regex).level == 0]) >= PAIRS // 2
