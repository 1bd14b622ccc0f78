"""Which writer makes which form."""

from __future__ import annotations

from pipeline.export.coco import CocoDataset, CocoResults
from pipeline.export.datumaro import DatumaroItems
from pipeline.export.pictures import LabelMaps, MaskFolders
from pipeline.export.polygons import LabelmeFiles, YoloLabels
from pipeline.export.records import ExportSettings, Form, Writer
from pipeline.export.sa1b import Sa1bTars


def writer_of(form: Form, settings: ExportSettings) -> Writer:
    match form:
        case Form.SA1B:
            return Sa1bTars()
        case Form.COCO:
            return CocoDataset()
        case Form.COCO_RESULTS:
            return CocoResults()
        case Form.LABEL_MAP:
            return LabelMaps(settings.wins)
        case Form.PNG:
            return MaskFolders()
        case Form.YOLO:
            return YoloLabels(settings.tolerance)
        case Form.LABELME:
            return LabelmeFiles(settings.tolerance)
        case Form.DATUMARO:
            return DatumaroItems()
