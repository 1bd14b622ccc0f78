"""pyarrow as Any, because it has no types. Everything in storage/ that needs pyarrow takes it from here."""

# pyright: reportMissingTypeStubs=false

from __future__ import annotations

from typing import Any

import pyarrow
import pyarrow.compute
import pyarrow.parquet

pa: Any = pyarrow
pq: Any = pyarrow.parquet
pc: Any = pyarrow.compute

UNREADABLE: tuple[type[Exception], ...] = (pa.ArrowException, OSError)
"""What reading damaged Parquet raises."""
