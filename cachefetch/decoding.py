"""What may go wrong when bytes from elsewhere, or from before a power cut, are read as JSON."""

from __future__ import annotations

import msgspec

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What `msgspec.json.decode` raises for bytes that are no JSON of the type: bad UTF-8 and nesting without end, too."""
