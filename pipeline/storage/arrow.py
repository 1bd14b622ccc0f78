"""pyarrow, which has no types: said once here, for everything in storage/ that needs it."""

# pyright: reportMissingTypeStubs=false

from __future__ import annotations

from typing import Any

import pyarrow
import pyarrow.parquet

pa: Any = pyarrow
pq: Any = pyarrow.parquet

UNREADABLE: tuple[type[Exception], ...] = (pa.ArrowException, OSError)
"""What reading damaged Parquet raises."""
