"""Which writer makes which form."""

from __future__ import annotations

from pipeline.export.records import Form, Writer
from pipeline.export.sa1b import Sa1bTars


def writer_of(form: Form) -> Writer:
    match form:
        case Form.SA1B:
            return Sa1bTars()
