"""Numbers and names in files that may be a stranger's, as far as they are believed. Pure; used by whatever
describes such a file.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

RANKS = 65_536

Rank = Annotated[int, Meta(ge=0, lt=RANKS)]
WorldSize = Annotated[int, Meta(ge=0, le=RANKS)]
Attempt = Annotated[int, Meta(ge=0, lt=1_000_000_000)]
UnixNs = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
"""Up to the year 2262."""
Count = Annotated[int, Meta(ge=0, le=1 << 53)]
"""Whatever is counted, bytes too: what a browser's numbers hold."""
Step = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
LoadedStep = Annotated[int, Meta(ge=-1, le=(1 << 63) - 1)]
Real = Annotated[int, Meta(ge=-(1 << 53), le=1 << 53)] | float
Code = Annotated[int, Meta(ge=-(1 << 31), lt=1 << 31)]
"""The code of an exit, or of a signal."""

RANK_DIGITS, ATTEMPT_DIGITS = "([0-9]{1,5})", "([0-9]{1,9})"
"""In names of files."""
