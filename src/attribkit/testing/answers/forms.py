"""Reading multipart/form-data: the fields of an upload, the file's bytes under "file"."""

from __future__ import annotations

import re
from typing import Any

__all__ = ["form_of"]

_BOUNDARY = re.compile(r'boundary="?([^";]+)"?', re.IGNORECASE)
_NAME = re.compile(rb'[; ]name="([^"]*)"')
_FILENAME = re.compile(rb'filename="([^"]*)"')


def form_of(raw: bytes, content_type: str) -> dict[str, Any]:
    """Return the fields as text and files as bytes, with the file's name under "filename"; {} for another type."""
    boundary = _BOUNDARY.search(content_type)
    if "multipart/form-data" not in content_type.lower() or boundary is None:
        return {}
    fields: dict[str, Any] = {}
    for part in raw.split(b"--" + boundary.group(1).encode("latin-1"))[1:]:
        head, blank, content = part.partition(b"\r\n\r\n")
        name = _NAME.search(head)
        if not blank or name is None:
            continue
        content = content.removesuffix(b"\r\n")
        filename = _FILENAME.search(head)
        if filename is None:
            fields[name.group(1).decode()] = content.decode("utf-8", "replace")
        else:
            fields[name.group(1).decode()] = content
            fields["filename"] = filename.group(1).decode("utf-8", "replace")
    return fields
