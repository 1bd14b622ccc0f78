"""Text from outside on its way to a terminal, a log or the output.

Names of files, keys and tar members are data: whoever made them must not be able to write lines of ours, colour a
terminal or turn the order of its characters. And where an address carries a password or a signature, neither shows it.
Owns what is escaped and what is left out; whoever writes to a stream calls it, line by line. Owns too how a count is
spelled.
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


LEFT_OUT = "***"
_SECRETS = (
    # user:password@, in which a password may hold slashes; a bucket's name holds no colon, but that of an access point
    re.compile(r"(?i)\b((?:https?|s3)://)(?!arn:)[^\s/:'\"]*:[^\s'\"]*@"),
    re.compile(r"(?i)\b([a-z][a-z0-9+.-]*://)[^\s/?#'\"]*@"),
    # all that follows the ? of a web address
    re.compile(r"(?i)\b(https?://[^\s?'\"]*\?)[^\s'\"]+"),
)
_SIGNED = re.compile(
    r"(?i)((?:\bX-(?:Amz|Goog)-(?:Signature|Credential|Security-Token)|(?<=[?&;])(?:AWSAccessKeyId|Signature|sig))=)"
    r"[^&\s'\"]+"
)
"""What makes a presigned address: whoever has it may do what it allows."""


def redacted(text: str) -> str:
    """`text` without passwords in addresses, without the queries of web addresses, and without signatures."""
    for secret in (*_SECRETS, _SIGNED):
        text = secret.sub(lambda match: match[1] + LEFT_OUT + "@" * match[0].endswith("@"), text)
    return text


def printable(text: str) -> str:
    """`text` as one line that moves no cursor: what would is spelled \\xNN or \\uNNNN, and secrets are left out."""
    return _UNPRINTABLE.sub(lambda match: _spelled(ord(match[0])), redacted(text))


def printable_lines(text: str) -> str:
    """The same for a text whose line breaks are meant."""
    return "\n".join(map(printable, text.split("\n")))


def shortened(text: str, most: int) -> str:
    """`text` as `printable` has it, with an ellipsis in place of what is beyond `most` characters."""
    text = printable(text)
    return text if len(text) <= most else text[: most - 1] + "…"


def counted(count: int, unit: str) -> str:
    """A number with what it counts: `1 mask`, `2,000 masks`."""
    return f"{count:,} {unit}{'' if count == 1 else 's'}"


def _spelled(code: int) -> str:
    return f"\\x{code:02x}" if code <= 0xFF else f"\\u{code:04x}"


def one_line(error: BaseException) -> str:
    """The last line of what an error says: the first ones of a remote error are a traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:500]
