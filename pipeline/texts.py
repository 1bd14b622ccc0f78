"""Text from outside on its way to a terminal or a log.

Names of files, keys and tar members are data: whoever made them must not be able to write lines of ours, colour a
terminal or turn the order of its characters. Owns what is escaped; whoever writes to a stream calls it, line by line.
"""

from __future__ import annotations

import re

_UNPRINTABLE = re.compile(
    "["
    "\x00-\x1f\x7f-\x9f"  # control characters C0, DEL and C1
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # turn the direction of what follows
    "\u2028\u2029"  # line and paragraph separators
    "\ud800-\udfff"  # halves of characters, which no encoding can write
    "]"
)


def printable(text: str) -> str:
    """`text` as one line that moves no cursor: what would is spelled \\xNN or \\uNNNN, all else stays as it is."""
    return _UNPRINTABLE.sub(lambda match: _spelled(ord(match[0])), text)


def printable_lines(text: str) -> str:
    """The same for a text whose line breaks are meant."""
    return "\n".join(map(printable, text.split("\n")))


def _spelled(code: int) -> str:
    return f"\\x{code:02x}" if code <= 0xFF else f"\\u{code:04x}"
