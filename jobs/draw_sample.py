"""Write the bundled sample shard anew: `python -m jobs.draw_sample`. It has the same pixels on every call."""

from __future__ import annotations

import io
import sys
import tarfile
from pathlib import Path

from model.training.photographs import jpeg
from model.training.scenes import HELD_OUT_FROM, draw_scene

SHARD = Path(__file__).parent / "sample" / "scenes.tar"
IMAGES = 8
FIRST_SCENE = HELD_OUT_FROM + 1_000_000
"""The model was neither trained nor evaluated on these scenes."""


def sample_shard(*, images: int = IMAGES) -> bytes:
    """A tar of drawn scenes of 640 x 480, without times or owners. Names are as in SA-1B: sa_1.jpg, sa_2.jpg, ..."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as shard:
        for number in range(images):
            scene = draw_scene(0, FIRST_SCENE + number, size_hw=(480, 640))
            data = jpeg(scene.rgb_HW3, quality=88)
            entry = tarfile.TarInfo(f"sa_{number + 1}.jpg")
            entry.size = len(data)
            shard.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def main() -> None:
    """Replace the shard at `SHARD`."""
    SHARD.parent.mkdir(exist_ok=True)
    SHARD.write_bytes(sample_shard())
    sys.stdout.write(f"{SHARD}: {SHARD.stat().st_size} bytes\n")


if __name__ == "__main__":
    main()
