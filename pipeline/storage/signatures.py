"""What a file is by its first bytes, whatever its name: the kinds that are decoded, and names for others.

Owns the signatures. Decodes nothing; a file's end may contradict its beginning.
"""

from __future__ import annotations

from pipeline.errors import InputError
from pipeline.records import Status

JPEG, PNG, WEBP, BMP, TIFF, GIF, AVIF = "JPEG", "PNG", "WebP", "BMP", "TIFF", "GIF", "AVIF"

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
)
# Pictures and papers that are found under image names, and that no decoder here reads.
_FOREIGN = (
    (b"\0\0\0\x0cjP  \r\n", "a JPEG 2000 image"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 image"),
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
    """One of the seven kinds above, which `data` claims to be.

    raises  InputError with UNREADABLE, naming what else it is, if that is known
    """
    kind = next((kind for beginning, kind in _BEGINNINGS if data.startswith(beginning)), None)
    if kind is not None:
        return kind
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return WEBP
    if data[4:8] == b"ftyp" and _is_avif(data):
        return AVIF
    foreign = _foreign_name(data)
    if foreign is not None:
        raise InputError(Status.UNREADABLE, f"{foreign}; images are JPEG, PNG, WebP, BMP, TIFF, GIF or AVIF")
    raise InputError(Status.UNREADABLE, "no JPEG, PNG, WebP, BMP, TIFF, GIF or AVIF")


def _is_avif(data: bytes) -> bool:
    """By the brands of the first box: the major one at 8, after a version the compatible ones from 16."""
    end = min(int.from_bytes(data[:4], "big"), 1024)
    brands = {data[8:12], *(data[at : at + 4] for at in range(16, end, 4))}
    return not brands.isdisjoint((b"avif", b"avis"))


def _foreign_name(data: bytes) -> str | None:
    if data[4:8] == b"ftyp":
        heif = data[8:12] in (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")
        return "a HEIC image" if heif else "a video or another ISO media file"
    if data[128:132] == b"DICM":
        return "a DICOM image"
    text = data[:64].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for beginnings, start in ((_FOREIGN, data), (_TEXTS, text)):
        for beginning, name in beginnings:
            if start.startswith(beginning):
                return name
    return None
