"""The released weights: which file, where it is, how many bytes it has and what their SHA-256 is.

Sizes and hashes were read in public sources and hold whatever the address serves; the address is the publisher's.
Source: github.com/facebookresearch/segment-anything, README (addresses), and the files themselves (sizes, hashes). Of
SAM 2: checkpoints/download_ckpts.sh of github.com/facebookresearch/sam2 (addresses); the hashes that micro_sam holds
these files to, and the sizes that public programs which fetch them expect.
"""

from __future__ import annotations

from dataclasses import dataclass

_SEGMENT_ANYTHING = "https://dl.fbaipublicfiles.com/segment_anything"
_SAM_2_1 = "https://dl.fbaipublicfiles.com/segment_anything_2/092824"
_SAM_2 = "https://dl.fbaipublicfiles.com/segment_anything_2/072824"


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
    "sam2.1_tiny": ReleasedFile(
        f"{_SAM_2_1}/sam2.1_hiera_tiny.pt",
        156_008_466,
        "7402e0d864fa82708a20fbd15bc84245c2f26dff0eb43a4b5b93452deb34be69",
        "Apache-2.0",
    ),
    "sam2.1_small": ReleasedFile(
        f"{_SAM_2_1}/sam2.1_hiera_small.pt",
        184_416_285,
        "6d1aa6f30de5c92224f8172114de081d104bbd23dd9dc5c58996f0cad5dc4d38",
        "Apache-2.0",
    ),
    "sam2.1_base_plus": ReleasedFile(
        f"{_SAM_2_1}/sam2.1_hiera_base_plus.pt",
        323_606_802,
        "a2345aede8715ab1d5d31b4a509fb160c5a4af1970f199d9054ccfb746c004c5",
        "Apache-2.0",
    ),
    "sam2.1_large": ReleasedFile(
        f"{_SAM_2_1}/sam2.1_hiera_large.pt",
        898_083_611,
        "2647878d5dfa5098f2f8649825738a9345572bae2d4350a2468587ece47dd318",
        "Apache-2.0",
    ),
    "sam2_tiny": ReleasedFile(
        f"{_SAM_2}/sam2_hiera_tiny.pt",
        155_906_050,
        "65b50056e05bcb13694174f51bb6da89c894b57b75ccdf0ba6352c597c5d1125",
        "Apache-2.0",
    ),
    "sam2_small": ReleasedFile(
        f"{_SAM_2}/sam2_hiera_small.pt",
        184_309_650,
        "95949964d4e548409021d47b22712d5f1abf2564cc0c3c765ba599a24ac7dce3",
        "Apache-2.0",
    ),
    "sam2_base_plus": ReleasedFile(
        f"{_SAM_2}/sam2_hiera_base_plus.pt",
        323_493_298,
        "d0bb7f236400a49669ffdd1be617959a8b1d1065081789d7bbff88eded3a8071",
        "Apache-2.0",
    ),
    "sam2_large": ReleasedFile(
        f"{_SAM_2}/sam2_hiera_large.pt",
        897_952_466,
        "7442e4e9b732a508f80e141e7c2913437a3610ee0c77381a66658c3a445df87b",
        "Apache-2.0",
    ),
}
"""Name of a model -> its file."""

TERMS = {
    "sam3": "SAM 3's weights are under the SAM License (github.com/facebookresearch/sam3, LICENSE): no military, "
    "nuclear or espionage use, no weapons; pass them on under it alone, and say so where you publish research with them"
}
"""Name of a model -> what is said where it is used: of weights that come with terms beyond a free licence."""
