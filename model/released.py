"""The released weights: which file, where it is, how many bytes it has and what their SHA-256 is.

Sizes and hashes were read in public sources and hold whatever the address serves; the address is the publisher's.
Source: github.com/facebookresearch/segment-anything, README (addresses), and the files themselves (sizes, hashes).
"""

from __future__ import annotations

from dataclasses import dataclass

_SEGMENT_ANYTHING = "https://dl.fbaipublicfiles.com/segment_anything"


@dataclass(frozen=True)
class ReleasedFile:
    """size in bytes; sha256 as hex digits; licence of the weights, by its SPDX name."""

    url: str
    size: int
    sha256: str
    licence: str

    @property
    def name(self) -> str:
        """The file's name, which is also that of a copy."""
        return self.url.rpartition("/")[2]


RELEASED = {
    "vit_b": ReleasedFile(
        f"{_SEGMENT_ANYTHING}/sam_vit_b_01ec64.pth",
        375_042_383,
        "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
        "Apache-2.0",
    ),
    "vit_l": ReleasedFile(
        f"{_SEGMENT_ANYTHING}/sam_vit_l_0b3195.pth",
        1_249_524_607,
        "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
        "Apache-2.0",
    ),
    "vit_h": ReleasedFile(
        f"{_SEGMENT_ANYTHING}/sam_vit_h_4b8939.pth",
        2_564_550_879,
        "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
        "Apache-2.0",
    ),
}
"""Name of a model -> its file."""
