"""Text that a terminal only shows: it obeys control characters, and data are anybody's."""

import json
from typing import Any, Final

__all__ = ["CONTROLS", "json_text", "printable"]

# C0, DEL and C1: what terminals take for orders (ECMA-48); a few read C1 in UTF-8 too.
CONTROLS: Final = (*range(0x20), *range(0x7F, 0xA0))
# What JSON leaves as it is of them.
_JSON_ESCAPES: Final = str.maketrans({chr(code): f"\\u{code:04x}" for code in range(0x7F, 0xA0)})


def printable(text: str) -> str:
    """Gives the text with what cannot be printed spelled out, except for line ends."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)


def json_text(value: Any) -> str:
    """Gives JSON on one line, without a control character in it; NaN is refused."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False).translate(_JSON_ESCAPES)
