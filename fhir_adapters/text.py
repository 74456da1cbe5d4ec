"""Whether JSON from an EHR is text that can be kept: databases, hashes and answers hold no half characters."""

from __future__ import annotations

import json
import re
from typing import Any, Final

_NUL: Final = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
"""U+0000 as `json.dumps` writes it, and not a backslash that stands before the letters."""


def text_fault(resource: Any) -> str:
    """What is wrong with the strings in ``resource`` (https://hl7.org/fhir/R4/datatypes.html#string), else empty."""
    try:
        text = json.dumps(resource, ensure_ascii=False)
        text.encode()
    except UnicodeEncodeError:
        return "holds half of a surrogate pair, which is no text"
    except RecursionError:
        return "is nested too deeply"
    return "holds the character U+0000, which FHIR does not have" if _NUL.search(text) else ""
