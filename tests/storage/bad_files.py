"""Files that are no sound images, each with the row that it becomes.

The table has a file for every row about single images of "Bad input" in docs/output.md. Run as a program,
`python -m tests.storage.bad_files FILE`, it decodes pickled files one after the other and says of each what came of it,
so that a decoder that crashes or hangs takes this process with it and no test.
"""

from __future__ import annotations

import faulthandler
import io
import pickle
import struct
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from tests.storage import pictures
from tests.storage.pictures import encode, png_chunk, png_of, tiff, with_chunks

MAX_PIXELS = 1 << 16
SECONDS = 10.0
"""For one file; a sound one takes a thousandth of it."""
SIDE = 32
RGB_HW3 = np.random.default_rng(5).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
DEEP_HW3 = RGB_HW3.astype(np.uint16) << 8
RGB, GREY = Image.fromarray(RGB_HW3), Image.fromarray(RGB_HW3[..., 0])
KINDS = ("JPEG", "PNG", "WebP", "TIFF", "BMP", "GIF", "JPEG2000", "AVIF", "HEIC")


class Row(NamedTuple):
    data: bytes
    status: str
    said: str = ""
    """Words of its reason, or of its remark."""


def frames(kind: str) -> bytes:
    return encode(RGB, kind, save_all=True, append_images=[GREY.convert("RGB")])


def sound() -> dict[str, bytes]:
    """Every kind of file that is read, small."""
    exif = Image.Exif()
    exif[0x0112] = 6
    tiled = {pictures.TILE_WIDTH: SIDE, pictures.TILE_HEIGHT: SIDE}
    return {
        "baseline.jpg": encode(RGB, "JPEG"),
        "progressive.jpg": encode(RGB, "JPEG", progressive=True, exif=exif),
        "grey.jpg": encode(GREY, "JPEG"),
        "cmyk.jpg": encode(RGB.convert("CMYK"), "JPEG"),
        "rgb.png": encode(RGB, "PNG"),
        "palette.png": encode(RGB.convert("P"), "PNG", transparency=3),
        "alpha.png": encode(RGB.convert("RGBA"), "PNG"),
        "bits.png": encode(GREY.convert("1"), "PNG"),
        "deep.png": png_of(DEEP_HW3),
        "lossy.webp": encode(RGB, "WebP"),
        "lossless.webp": encode(RGB.convert("RGBA"), "WebP", lossless=True),
        "frames.webp": frames("WebP"),
        "strips.tif": encode(RGB, "TIFF"),
        "packed.tif": encode(RGB, "TIFF", compression="tiff_lzw"),
        "jpeg.tif": encode(RGB, "TIFF", compression="jpeg"),
        "tiled.tif": tiff(RGB_HW3, tags=tiled),
        "deep.tif": tiff(DEEP_HW3),
        "deep_tiled.tif": tiff(DEEP_HW3, tags=tiled | {pictures.COMPRESSION: 8}),
        "planar.tif": tiff(DEEP_HW3, tags={pictures.PLANAR: 2}, order=">"),
        "float.tif": tiff(RGB_HW3.astype(np.float32) / 255),
        "pages.tif": frames("TIFF"),
        "white_is_zero.tif": tiff(RGB_HW3[..., 0], tags={pictures.PHOTOMETRIC: 0}),
        "rgb.bmp": encode(RGB, "BMP"),
        "palette.bmp": encode(RGB.convert("P"), "BMP"),
        "still.gif": encode(RGB, "GIF"),
        "frames.gif": frames("GIF"),
        "grey.jp2": encode(GREY, "JPEG2000"),
        "rgb.jp2": encode(RGB, "JPEG2000"),
        "stream.j2k": encode(RGB, "JPEG2000", no_jp2=True),
        "rgb.avif": encode(RGB, "AVIF"),
        "rgb.heic": encode(RGB, "HEIC"),
    }


def table() -> dict[str, Row]:
    """The name of each file -> its bytes, and what its row says."""
    rows = {name: Row(data, "ok") for name, data in sound().items()}
    for group in (_foreign(), _cut(), _contradictory(), _too_deep(), _too_large(), _odd()):
        assert not rows.keys() & group.keys()
        rows |= group
    return rows


def _foreign() -> dict[str, Row]:
    """Other files under an image's name."""
    beginnings = {
        "nothing.jpg": (b"", "the file is empty"),
        "byte.jpg": (b"\xff", "no JPEG, PNG"),
        "words.png": (b"this is not an image", "no JPEG, PNG"),
        "page.jpg": (b"\xef\xbb\xbf  <!DOCTYPE html><html>", "an HTML page"),
        "error.jpg": (b"<?xml version='1.0'?><Error>", "an XML text"),
        "vector.png": (b"<svg xmlns='x'>", "an SVG"),
        "pointer.jpg": (b"version https://git-lfs.github.com/spec/v1", "Git LFS"),
        "paper.jpg": (b"%PDF-1.7", "a PDF"),
        "script.tif": (b"%!PS-Adobe", "PostScript"),
        "layers.jpg": (b"8BPS\0\1", "a Photoshop document"),
        "light.png": (b"\x76\x2f\x31\x01", "an OpenEXR image"),
        "radiance.png": (b"#?RADIANCE\n", "Radiance"),
        "box.jpg": (b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL image"),
        "codestream.jpg": (b"\xff\x0a\0", "a JPEG XL image"),
        "quick.png": (b"qoif\0\0\0\1", "a QOI image"),
        "stars.tif": (b"SIMPLE  =                    T", "a FITS image"),
        "cells.tif": (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
        "bits.bmp": (b"P4\n1 1\n\0", "a PBM image"),
        "grey.bmp": (b"P5\n1 1\n255\n\0", "a PGM image"),
        "colours.bmp": (b"P6\n1 1\n255\n\0\0\0", "a PPM image"),
        "archive.jpg": (b"\x1f\x8b\x08\0", "a gzip archive"),
        "document.jpg": (b"PK\x03\x04\x14\0", "a zip archive"),
        "scan.jp2": (bytes(128) + b"DICM", "a DICOM image"),
        "film.heic": (b"\0\0\0\x18ftypisom\0\0\0\0isomiso2", "a video"),
    }
    return {name: Row(data, "unreadable", said) for name, (data, said) in beginnings.items()}


def _cut() -> dict[str, Row]:
    """Half of a file, and its first 40 bytes."""
    rows: dict[str, Row] = {}
    for kind in KINDS:
        data = encode(RGB, kind)
        rows[f"half.{kind.lower()}"] = Row(data[: len(data) // 2], "unreadable")
        rows[f"beginning.{kind.lower()}"] = Row(data[:40], "unreadable")
    return {name.replace("jpeg2000", "jp2").replace(".jpeg", ".jpg"): row for name, row in rows.items()}


def _contradictory() -> dict[str, Row]:
    """What is said does not fit what is there."""
    png, jpeg = encode(RGB, "PNG"), encode(RGB, "JPEG")
    frame = jpeg.index(b"\xff\xc0") + 5
    flipped = bytearray(png)
    flipped[png.index(b"IDAT") + 20] ^= 1
    return {
        "checksum.png": Row(bytes(flipped), "unreadable", "checksum of IDAT"),
        "no_width.png": Row(_png_header(0, 9), "unreadable"),
        "no_pixels.png": Row(_png_header(9, 9), "unreadable"),
        "no_height.jpg": Row(jpeg[:frame] + b"\0\0" + jpeg[frame + 2 :], "unreadable"),
        "no_height.bmp": Row(_bmp(9, 0), "unreadable"),
        "twice.tif": Row(_twice(tiff(RGB_HW3)), "unreadable", "twice"),
        "nowhere.tif": Row(_with_tag(tiff(DEEP_HW3), 273, 1 << 30), "unreadable", "truncated"),
        "loop.tif": Row(b"II*\0\x08\0\0\0\0\0\x08\0\0\0", "unreadable"),
        "behind.tif": Row(b"II*\0\xff\xff\xff\x7f", "unreadable"),
    }


def _too_deep() -> dict[str, Row]:
    """Samples that have no level in 0..255 by the rule of the run, or are no levels at all."""
    twelve = np.array([[0, 4095]], np.uint16)
    return {
        "twelve.png": Row(encode(twelve, "PNG"), "unreadable", "nearly black; set image.depth=stretch"),
        "twelve.tif": Row(tiff(twelve), "unreadable", "nearly black; set image.depth=stretch"),
        "negative.tif": Row(tiff(np.array([[-5, 30_000]], np.int16)), "unreadable", "negative values"),
        "heights.tif": Row(tiff(np.array([[0.0, 8848.0]], np.float32)), "unreadable", "run from 0 to 8848"),
        "nan.tif": Row(tiff(np.full((2, 2), np.nan, np.float32)), "unreadable", "none of its values"),
        "complex.tif": Row(tiff(np.ones((2, 2), np.uint64), tags={pictures.FORMAT: 6}), "unreadable", "complex"),
        "bands.tif": Row(tiff(np.zeros((2, 2, 5), np.uint16)), "unreadable", "which bands are the colours"),
        "webp.tif": Row(tiff(DEEP_HW3, tags={pictures.COMPRESSION: 50001}), "unreadable", "compression is not read"),
    }


def _too_large() -> dict[str, Row]:
    """Judged by the header, before anything is decoded."""
    jpeg, gif, jp2 = encode(RGB, "JPEG"), encode(RGB, "GIF"), encode(RGB, "JPEG2000", no_jp2=True)
    frame = jpeg.index(b"\xff\xc0") + 5
    webp = bytearray(encode(RGB, "WebP", lossless=True))
    webp[21:25] = (16382 | 16382 << 14).to_bytes(4, "little")
    large = "run.max_pixels is 65,536"
    huge = {pictures.TILE_WIDTH: 1 << 16, pictures.TILE_HEIGHT: 1 << 16}
    return {
        "bomb.png": Row(_png_header(70_000, 70_000), "too_large", large),
        "bomb.jpg": Row(jpeg[:frame] + b"\xff\xdc\xff\xdc" + jpeg[frame + 4 :], "too_large", large),
        "bomb.bmp": Row(_bmp(1 << 20, 1 << 20), "too_large", large),
        "bomb.gif": Row(gif[:6] + b"\xff\xff\xff\xff" + gif[10:], "too_large", large),
        "bomb.webp": Row(bytes(webp), "too_large", large),
        "bomb.j2k": Row(jp2[:8] + struct.pack(">2I", 1 << 16, 1 << 16) + jp2[16:], "too_large", large),
        "bomb.tif": Row(tiff(RGB_HW3, tags={pictures.WIDTH: 1 << 20}), "too_large", large),
        "tile.tif": Row(tiff(DEEP_HW3, tags=huge), "too_large", large),
        "one_more.png": Row(encode(Image.new("L", (257, 256)), "PNG"), "too_large", "257 x 256 = 65,792 pixels"),
    }


def _odd() -> dict[str, Row]:
    """Flaws that cost no pixel."""
    png, jpeg = encode(RGB, "PNG"), encode(RGB, "JPEG")
    broken_text = png_chunk(b"zTXt", b"key\0\0" + b"no deflate")
    bomb_text = png_chunk(b"zTXt", b"XML:com.adobe.xmp\0\0" + zlib.compress(bytes(1 << 24)))
    profile = png_chunk(b"iCCP", b"name\0\0" + b"no deflate")
    return {
        "other_name.jpg": Row(png, "ok"),
        "no_end.jpg": Row(jpeg[:-2], "ok", "lacks its end marker"),
        "no_end.png": Row(png[:-12], "ok"),
        "more.jpg": Row(jpeg + bytes(100), "ok"),
        "text.png": Row(with_chunks(png, broken_text), "ok"),
        "bomb_text.png": Row(with_chunks(png, bomb_text), "ok"),
        "profile.png": Row(with_chunks(png, profile), "ok"),
        "exif.jpg": Row(encode(RGB, "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff"), "ok"),
        "largest.png": Row(encode(Image.new("L", (256, 256)), "PNG"), "ok"),
        "pixel.png": Row(encode(Image.new("L", (1, 1)), "PNG"), "ok"),
    }


def _png_header(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IEND", b"")


def _bmp(width: int, height: int) -> bytes:
    data = bytearray(encode(RGB, "BMP"))
    data[18:26] = struct.pack("<2i", width, height)
    return bytes(data)


def _with_tag(data: bytes, tag: int, value: int) -> bytes:
    """Another value for one of a TIFF's own numbers."""
    place = 10 + 12 * next(n for n in range(20) if data[10 + 12 * n : 12 + 12 * n] == struct.pack("<H", tag))
    return data[: place + 8] + struct.pack("<I", value) + data[place + 12 :]


def _twice(data: bytes) -> bytes:
    """The tag of the height becomes a second one of the width."""
    return data[:22] + struct.pack("<H", 256) + data[24:]


def decode_all(files: dict[str, bytes]) -> Iterator[tuple[str, str, str]]:
    """The name, status and reason of each, or `wrong` and what is: nothing but images and refusals may come."""
    from pipeline.errors import InputError
    from pipeline.storage.images import decode_image

    for name, data in files.items():
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        try:
            image = decode_image(data, max_pixels=MAX_PIXELS)
        except InputError as error:
            yield name, str(error.status), error.reason
        except BaseException as error:  # noqa: BLE001  # told as a failure of this file
            yield name, "wrong", f"{type(error).__name__}: {error}"
        else:
            pixels: Any = image.rgb_HW3
            right = pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.flags.c_contiguous
            yield name, "ok" if right and 0 < pixels[..., 0].size <= MAX_PIXELS else "wrong", image.note
        finally:
            faulthandler.cancel_dump_traceback_later()


def main() -> None:
    """One line before each file and one after it; at last the most memory that this process had, in KiB."""
    import resource

    files: dict[str, bytes] = pickle.loads(Path(sys.argv[1]).read_bytes())
    warm = dict.fromkeys(sound().values())
    for _ in decode_all({str(number): data for number, data in enumerate(warm)}):
        pass  # what decoders load once is not a file's doing
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    out = io.TextIOWrapper(sys.stdout.buffer, encoding="utf-8", errors="backslashreplace")
    names = iter(files)
    out.write(f"{next(names)}\n")
    out.flush()
    for name, status, reason in decode_all(files):
        out.write(f"\t{name}\t{status}\t{' '.join(reason.split())}\n{next(names, '')}\n")
        out.flush()
    out.write(f"\t\tgrown\t{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before}\n")
    out.flush()


if __name__ == "__main__":
    main()
