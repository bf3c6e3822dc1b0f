"""What others wrote is shown and never obeyed: no control, no escape, no mark of direction comes out raw."""

import io
import json
import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from consumers.cli import output
from consumers.cli.rendering import render
from consumers.cli.safe_text import json_text, line, plain
from consumers.receiver import Checks

#: CSI as ESC [ and as one byte, an OSC with a bell, all of C0 and C1, DEL, marks of direction, ends of line.
HOSTILE = [
    "\x1b[2J",
    "\x9b31m",
    "\x1b]0;title\x07",
    "\x90q\x9c",
    *map(chr, range(0x20)),
    *map(chr, range(0x7F, 0xA0)),
    *"\u061c\u200e\u200f\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069",
]
TEXTS = st.lists(st.sampled_from(HOSTILE) | st.text(max_size=8), max_size=8).map("".join)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


def raw_controls(printed: str, *, allowed: str = "\n\t") -> set[str]:
    """Find what a terminal could obey: categories Cc and Cs, line separators, and marks of direction."""
    return {
        each
        for each in printed
        if each not in allowed
        and (
            unicodedata.category(each) in ("Cc", "Cs", "Zl", "Zp")
            or unicodedata.bidirectional(each)
            in ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
            or each in "\u061c\u200e\u200f"
        )
    }


@pytest.mark.parametrize("each", HOSTILE)
def test_each_of_them_is_replaced(each: str) -> None:
    assert raw_controls(plain(f"a{each}b")) == set()
    assert raw_controls(line(f"a{each}b"), allowed="") == set()


@given(TEXTS)
def test_nothing_comes_out_raw_and_the_rest_stays(text: str) -> None:
    assert raw_controls(plain(text)) == set()
    assert raw_controls(line(text), allowed="") == set()
    kept = "".join(each for each in text if not raw_controls(each))
    assert plain(text).replace("\ufffd", "") == kept.replace("\ufffd", "")


@given(VALUES, st.sampled_from([None, 2]))
def test_json_reads_back_unchanged_and_holds_nothing_raw(value: Any, indent: int | None) -> None:
    written = json_text(value, indent=indent)
    assert json.loads(written) == value
    assert raw_controls(written, allowed="\n" if indent else "") == set()
    written.encode()


@given(VALUES)
def test_what_show_json_prints_reads_back_unchanged(value: Any) -> None:
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdout", printed)
        output.show_json(value)
    assert json.loads(printed.getvalue()) == value
    assert raw_controls(printed.getvalue(), allowed="\n") == set()


@given(st.dictionaries(TEXTS, VALUES, max_size=4))
def test_fields_and_tables_hold_nothing_raw(item: dict[str, Any]) -> None:
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdout", printed)
        output.show_fields(item)
        output.show_table([item], dict.fromkeys(item, "Title"), "nothing")
    assert raw_controls(printed.getvalue(), allowed="\n") == set()


@given(st.dictionaries(st.sampled_from(["senderId", "messageCounter", "message"]), VALUES))
def test_a_message_is_drawn_with_nothing_raw(body: dict[str, Any]) -> None:
    printed = io.StringIO()
    console = Console(file=printed, width=80, highlight=False, color_system=None)
    console.print(render(body, Checks()))
    assert raw_controls(printed.getvalue()) == set()


def test_an_error_that_the_api_tells_is_shown_safely(capsys: pytest.CaptureFixture[str]) -> None:
    import typer

    from broker.errors import PostboteError

    with pytest.raises(typer.Exit):
        output.fail(PostboteError("no \x1b[31mred\x9b0m \u202egnp.exe"))
    assert raw_controls(capsys.readouterr().err) == set()
