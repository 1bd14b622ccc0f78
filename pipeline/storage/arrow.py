"""pyarrow as Any, because it has no types. Everything in storage/ that needs pyarrow takes it from here."""

# pyright: reportMissingTypeStubs=false

from __future__ import annotations

from typing import Any

import pyarrow
import pyarrow.parquet

pa: Any = pyarrow
pq: Any = pyarrow.parquet

UNREADABLE: tuple[type[Exception], ...] = (pa.ArrowException, OSError)
"""What reading damaged Parquet raises."""


def compute() -> Any:
    """pyarrow.compute, a tenth of a second to import, for the few that need it."""
    import pyarrow.compute

    return pyarrow.compute
