"""What a file is by its first bytes, whatever its name: the kinds that are decoded, and names for others.

Owns the signatures. Decodes nothing; a file's end may contradict its beginning.
"""

from __future__ import annotations

from pipeline.errors import InputError
from pipeline.records import Status

JPEG, PNG, WEBP, BMP, TIFF, GIF, AVIF, HEIC = "JPEG", "PNG", "WebP", "BMP", "TIFF", "GIF", "AVIF", "HEIC"
JPEG_2000 = "JPEG 2000"
_READ = f"{JPEG}, {PNG}, {WEBP}, {BMP}, {TIFF}, {GIF}, {AVIF}, {HEIC} or {JPEG_2000}"

_BEGINNINGS = (
    (b"\xff\xd8\xff", JPEG),
    (b"\x89PNG\r\n\x1a\n", PNG),
    (b"BM", BMP),
    (b"II*\0", TIFF),
    (b"MM\0*", TIFF),
    (b"II+\0", TIFF),  # BigTIFF
    (b"MM\0+", TIFF),
    (b"GIF87a", GIF),
    (b"GIF89a", GIF),
    (b"\0\0\0\x0cjP  \r\n", JPEG_2000),
    (b"\xff\x4f\xff\x51", JPEG_2000),  # a codestream by itself
)
# Pictures and papers that are found under image names, and that no decoder here reads.
_FOREIGN = (
    (b"\0\0\0\x0cJXL \r\n", "a JPEG XL image"),
    (b"\xff\x0a", "a JPEG XL image"),
    (b"8BPS", "a Photoshop document"),
    (b"%PDF", "a PDF"),
    (b"%!PS", "a PostScript file"),
    (b"\x76\x2f\x31\x01", "an OpenEXR image"),
    (b"#?RADIANCE", "a Radiance HDR image"),
    (b"qoif", "a QOI image"),
    (b"SIMPLE  =", "a FITS image"),
    (b"\x89HDF", "an HDF5 file"),
    (b"P4\n", "a PBM image"),
    (b"P5\n", "a PGM image"),
    (b"P6\n", "a PPM image"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"PK\x03\x04", "a zip archive"),
    (b"version https://git-lfs", "a Git LFS pointer, whose image was not downloaded"),
)
_TEXTS = (
    (b"<!doctype html", "an HTML page"),
    (b"<html", "an HTML page"),
    (b"<svg", "an SVG"),
    (b"<?xml", "an XML text"),
)


def kind_of(data: bytes) -> str:
    """One of the kinds above, which `data` claims to be.

    raises  InputError with UNREADABLE, naming what else it is, if that is known
    """
    kind = next((kind for beginning, kind in _BEGINNINGS if data.startswith(beginning)), None)
    if kind is not None:
        return kind
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return WEBP
    if data[4:8] == b"ftyp" and (kind := _media_kind(data)):
        return kind
    foreign = _foreign_name(data)
    if foreign is not None:
        raise InputError(Status.UNREADABLE, f"{foreign}; images are {_READ}")
    raise InputError(Status.UNREADABLE, f"no {_READ}")


def _media_kind(data: bytes) -> str:
    """AVIF, HEIC or nothing, by the brands of the first box: one at 8, and after a version more of them from 16 on."""
    end = min(int.from_bytes(data[:4], "big"), 1024)
    brands = {data[8:12], *(data[at : at + 4] for at in range(16, end, 4))}
    if not brands.isdisjoint((b"avif", b"avis")):
        return AVIF
    return "" if brands.isdisjoint((b"heic", b"heix", b"heim", b"heis")) else HEIC


def _foreign_name(data: bytes) -> str | None:
    if data[4:8] == b"ftyp":
        return "a video or another ISO media file"
    if data[128:132] == b"DICM":
        return "a DICOM image"
    text = data[:64].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for beginnings, start in ((_FOREIGN, data), (_TEXTS, text)):
        for beginning, name in beginnings:
            if start.startswith(beginning):
                return name
    return None
