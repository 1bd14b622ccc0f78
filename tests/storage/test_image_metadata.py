"""Metadata costs no image, a missing end marker costs none whose rows are there, and other kinds are called by name."""

from __future__ import annotations

import random
import struct
import zlib
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image, ImageFile, PngImagePlugin

from pipeline.errors import InputError
from pipeline.records import Status
from pipeline.storage.images import DecodedImage, decode_image
from pipeline.storage.kinds import is_image
from tests.storage.pictures import (
    PLENTY,
    decode,
    encode,
    noise,
    opencv,
    outcome,
    png_chunk,
    png_of,
    refusal,
    with_chunks,
)

EXIF = Image.Exif()
EXIF[0x0112] = 6
TURNED_HW3 = np.rot90(noise(), -1)
LONG = b"x" * 1_500_000
BAD_CRC = png_chunk(b"pHYs", struct.pack(">IIB", 2835, 2835, 1))[:-1] + b"?"


@pytest.mark.parametrize(
    "chunk",
    [
        png_chunk(b"zTXt", b"workflow\0\0" + zlib.compress(LONG)),
        png_chunk(b"iTXt", b"workflow\0\1\0\0\0" + zlib.compress(LONG)),
        png_chunk(b"tEXt", b"workflow\0" + LONG),
        png_chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(LONG)),
        png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(LONG)),
        png_chunk(b"iCCP", b"profile\0\0" + zlib.compress(bytes(range(256)) * 8000)),
        png_chunk(b"zTXt", b"workflow\0\0no zlib stream"),
        png_chunk(b"tRNS", b""),
        png_chunk(b"eXIf", b"no exif"),
        png_chunk(b"acTL", b"?"),
        png_chunk(b"pHYs", b"short"),
        BAD_CRC,
    ],
    ids=range(12),
)
def test_no_chunk_beside_the_pixels_costs_a_png(chunk: bytes) -> None:
    """Texts of 1.5 MB (a workflow of an image generator), profiles of 2 MB, bad checksums, nonsense: at both depths."""
    limit = PngImagePlugin.MAX_TEXT_CHUNK
    plain = encode(noise())
    for data in (with_chunks(plain, chunk), plain[:-12] + chunk + plain[-12:], plain[:-12] + chunk[:-6]):
        np.testing.assert_array_equal(decode(data), noise())
    deep_HW3 = noise().astype(np.uint16) << 8
    np.testing.assert_array_equal(decode(png_of(deep_HW3, chunk)), noise())
    assert limit == PngImagePlugin.MAX_TEXT_CHUNK


XMP = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
HEX = b"\nexif\n%8d\n%s\n" % (len(EXIF.tobytes()), EXIF.tobytes().hex().encode())


@pytest.mark.parametrize(
    "chunk",
    [
        png_chunk(b"eXIf", EXIF.tobytes().removeprefix(b"Exif\0\0")),
        png_chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(HEX)),
        png_chunk(b"tEXt", b"Raw profile type exif\0" + HEX),
        png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP),
        png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(XMP)),
    ],
    ids=range(5),
)
def test_a_png_is_turned_wherever_its_orientation_stands(chunk: bytes) -> None:
    """In a chunk of its own, in ImageMagick's text or in XMP, before the pixels or behind them, beside a bad one."""
    plain = encode(noise())
    deep = png_of(noise().astype(np.uint16) << 8)
    for data in (with_chunks(plain, chunk, BAD_CRC), plain[:-12] + chunk + plain[-12:], with_chunks(deep, chunk)):
        image = decode_image(data, max_pixels=PLENTY)
        np.testing.assert_array_equal(image.rgb_HW3, TURNED_HW3)
        assert image.exif_orientation == 6


def test_a_bad_checksum_of_pixels_is_still_a_damaged_png() -> None:
    """What is critical is checked, at both depths; Pillow looks at the header's checksum alone."""
    for data in (encode(noise()), png_of(noise().astype(np.uint16) << 8)):
        for name in (b"IHDR", b"IDAT"):
            place = data.index(name)
            end = place + 4 + int.from_bytes(data[place - 4 : place], "big")
            hurt = data[:end] + bytes([data[end] ^ 1]) + data[end + 1 :]
            assert "checksum" in refusal(hurt).reason


def test_a_text_that_inflates_to_gigabytes_is_not_inflated() -> None:
    """A bomb beside the pixels: 1 MB of zeros' zeros; the chunk goes unread."""
    bomb = zlib.compress(bytes(50_000_000), 9)
    for name in (b"workflow\0\0", b"Raw profile type exif\0\0"):
        np.testing.assert_array_equal(decode(with_chunks(encode(noise()), png_chunk(b"zTXt", name + bomb))), noise())


def jpeg(**options: Any) -> bytes:
    smooth = cv2.resize(noise(), (60, 45), interpolation=cv2.INTER_LINEAR)
    return encode(Image.fromarray(smooth), "JPEG", **{"quality": 85, **options})


KINDS_OF_JPEG = [
    {},
    {"progressive": True},
    {"subsampling": 0},
    {"progressive": True, "subsampling": 2, "quality": 30},
    {"restart_marker_rows": 1},
]


@pytest.mark.parametrize("options", KINDS_OF_JPEG, ids=str)
@pytest.mark.parametrize("cut", [1, 2])
def test_a_jpeg_that_lacks_only_its_end_marker_is_an_image_with_a_note(options: dict[str, Any], cut: int) -> None:
    """Cameras that lost power and careless downloads; every row is there, as a second decoder sees them."""
    data = jpeg(exif=EXIF, **options)
    whole, unfinished = (decode_image(part, max_pixels=PLENTY) for part in (data, data[:-cut]))
    np.testing.assert_array_equal(unfinished.rgb_HW3, whole.rgb_HW3)
    assert unfinished.exif_orientation == 6
    assert (whole.note, unfinished.note) == ("", "the JPEG lacks its end marker; every row is there")
    seen = np.rot90(opencv(data).astype(int), -1)
    assert np.abs(seen - unfinished.rgb_HW3).max() <= 3
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


@pytest.mark.parametrize("options", KINDS_OF_JPEG, ids=str)
def test_a_jpeg_cut_anywhere_is_whole_or_refused(options: dict[str, Any]) -> None:
    """The decoder fills what is missing with gray and says nothing; those pixels never come out."""
    data = jpeg(**options)
    whole_HW3 = decode(data)
    accepted = 0
    for size in [*range(0, len(data) - 40, 13), *range(len(data) - 40, len(data))]:
        result = outcome(data[:size])
        if isinstance(result, DecodedImage):
            np.testing.assert_array_equal(result.rgb_HW3, whole_HW3)
            accepted += 1
        else:
            assert result.status is Status.UNREADABLE
    assert 2 <= accepted <= 4


def test_a_progressive_jpeg_cut_between_two_scans_is_refused() -> None:
    """All its rows can be drawn, and coarser than they were: the scans' headers say that some never came."""
    data = jpeg(progressive=True)
    scans = [place for place in range(len(data) - 1) if data[place : place + 2] == b"\xff\xda"]
    tables = [data.rindex(b"\xff\xc4", 0, scan) for scan in scans[1:]]
    assert len(scans) > 4
    for place in (*scans[1:], *tables):
        assert isinstance(outcome(data[:place]), InputError)


def hurt_metadata(data: bytes, places: list[range], dice: random.Random) -> bytes:
    hurt = bytearray(data)
    for _ in range(dice.choice((1, 2, 8, 40))):
        hurt[dice.choice(dice.choice(places))] = dice.randrange(256)
    return bytes(hurt)


def test_no_byte_of_a_jpegs_metadata_costs_its_pixels() -> None:
    """EXIF, XMP, a colour profile, a comment: whatever stands there, the same pixels come out, at most turned."""
    exif = Image.Exif()
    exif[0x0112], exif[0x011A], exif[0x0128] = 1, 72.0, 2
    data = jpeg(exif=exif, xmp=b"<x:xmpmeta/>", icc_profile=bytes(500), comment=b"hello")
    whole_HW3, places, start = decode(data), list[range](), 2
    while data[start + 1] != 0xDA:
        length = int.from_bytes(data[start + 2 : start + 4], "big")
        if data[start + 1] in (0xE1, 0xE2, 0xFE):
            places.append(range(start + 4, start + 2 + length))
        start += 2 + length
    dice = random.Random(0)
    for _ in range(400):
        image = decode_image(hurt_metadata(data, places, dice), max_pixels=PLENTY)
        if image.exif_orientation == 1:
            np.testing.assert_array_equal(image.rgb_HW3, whole_HW3)


def test_exif_that_stops_pillow_still_turns_the_image() -> None:
    """A resolution without a denominator: the orientation beside it counts."""
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x02" + struct.pack(">HHII", 0x011A, 3, 1, 1 << 16)
    exif += struct.pack(">HHII", 0x0112, 3, 1, 6 << 16) + bytes(4)
    plain = jpeg()
    image = decode_image(jpeg(exif=exif), max_pixels=PLENTY)
    assert image.exif_orientation == 6
    np.testing.assert_array_equal(image.rgb_HW3, np.rot90(decode(plain), -1))


def test_avif_is_read_whatever_its_name() -> None:
    """Web images; a second decoder sees the same."""
    data = encode(noise(32, 24), "AVIF", quality=100, subsampling="4:4:4")
    seen = opencv(data).astype(int)
    assert np.abs(seen - decode(data)).max() <= 2
    assert refusal(data, max_pixels=32 * 24 - 1).status is Status.TOO_LARGE


@pytest.mark.parametrize("name", ["a.jfif", "a.JPE", "b/c.avif", "d.jpg", "e.tiff", "IMG_1.HEIC", "tile.jp2"])
def test_the_names_of_what_is_read_are_names_of_images(name: str) -> None:
    """A browser saves .jfif, and old cameras .jpe; by name alone they were no images."""
    assert is_image(name)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40), "a HEIC that cannot be decoded"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + bytes(40), "a video"),
        (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(40), "a JPEG 2000 that is cut"),
        (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(40), "a JPEG XL image"),
        (b"8BPS\0\1" + bytes(40), "a Photoshop document"),
        (b"\n <!DOCTYPE html><title>404</title>", "an HTML page"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
        (bytes(128) + b"DICM" + bytes(40), "a DICOM image"),
        (b"\xff\xd8\xff\xe0 what follows is no segment", "a JPEG that cannot be decoded"),
        (jpeg().replace(b"\xff\xc0\0\x11\x08", b"\xff\xc0\0\x11\x0c"), "a JPEG that cannot be decoded"),
    ],
)
def test_what_is_not_read_is_called_by_its_name(data: bytes, name: str) -> None:
    """The owner of a folder of layered documents must learn that they are none of the pictures that are read."""
    error = refusal(data)
    assert error.status is Status.UNREADABLE
    assert error.reason.startswith(name)
