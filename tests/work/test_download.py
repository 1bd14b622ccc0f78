"""Files from the web, from a real HTTP server that breaks off, lies and serves the wrong file."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import pytest

from pipeline.errors import ConfigError, StorageError
from pipeline.work import download as module
from pipeline.work.download import download
from tests.web_server import BODY, Web, web

__all__ = ["web"]

SHA256 = hashlib.sha256(BODY).hexdigest()


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSES_S", (0.0, 0.0))


def fetch(web: Web, path: Path) -> list[int]:
    """What was told of the bytes that are there."""
    told: list[int] = []
    download(web.url, path, size=len(BODY), sha256=SHA256, told=told.append)
    return told


def left_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_file_comes_whole_and_only_once(web: Web, tmp_path: Path) -> None:
    path = tmp_path / "cache" / "weights.pth"
    assert fetch(web, path)[-1] == len(BODY)
    assert path.read_bytes() == BODY
    assert fetch(web, path) == []
    assert len(web.seen) == 1
    assert left_in(path.parent) == {"weights.pth", "weights.pth.lock"}


def test_what_breaks_off_goes_on_where_it_was(web: Web, tmp_path: Path) -> None:
    """As often as need be, if each try brings something."""
    web.answers = [100_000, 100_000, 100_000, 100_000, None]
    fetch(web, tmp_path / "weights.pth")
    assert (tmp_path / "weights.pth").read_bytes() == BODY
    assert web.seen == ["", *(f"bytes={done}-" for done in (100_000, 200_000, 300_000, 400_000))]


def test_a_later_command_goes_on_from_what_an_earlier_one_got(web: Web, tmp_path: Path) -> None:
    web.answers = [100_000, "503", "503", "503"]
    with pytest.raises(StorageError, match="cannot be fetched: Service Unavailable"):
        fetch(web, tmp_path / "weights.pth")
    assert not (tmp_path / "weights.pth").exists()
    fetch(web, tmp_path / "weights.pth")
    assert (tmp_path / "weights.pth").read_bytes() == BODY
    assert web.seen[-1] == "bytes=100000-"


def test_a_server_without_ranges_begins_anew(web: Web, tmp_path: Path) -> None:
    web.ranges, web.answers = False, [100_000, None]
    fetch(web, tmp_path / "weights.pth")
    assert (tmp_path / "weights.pth").read_bytes() == BODY


def test_bytes_of_another_file_that_lie_there_are_found_by_the_hash(web: Web, tmp_path: Path) -> None:
    (tmp_path / "weights.pth.unfinished").write_bytes(b"\xff" * 1000)
    with pytest.raises(ConfigError, match="it is another file than was published, so nothing of it was kept"):
        fetch(web, tmp_path / "weights.pth")
    assert left_in(tmp_path) == {"weights.pth.lock"}
    fetch(web, tmp_path / "weights.pth")


def test_a_longer_rest_than_the_file_has_is_begun_anew(web: Web, tmp_path: Path) -> None:
    web.answers = ["416", None]
    (tmp_path / "weights.pth.unfinished").write_bytes(BODY[:1000])
    fetch(web, tmp_path / "weights.pth")
    assert web.seen == ["bytes=1000-", ""]


def test_a_wrong_file_of_the_right_size_is_not_kept(web: Web, tmp_path: Path) -> None:
    web.body = BODY[::-1]
    with pytest.raises(ConfigError, match=f"and not {SHA256[:12]}"):
        fetch(web, tmp_path / "weights.pth")
    assert left_in(tmp_path) == {"weights.pth.lock"}


@pytest.mark.parametrize("body", [BODY + b"more", BODY[:-1]])
def test_a_file_of_another_size_is_refused_before_it_is_fetched(web: Web, tmp_path: Path, body: bytes) -> None:
    web.body = body
    with pytest.raises(ConfigError, match=rf"has {len(body):,} bytes and not {len(BODY):,}"):
        fetch(web, tmp_path / "weights.pth")
    assert len(web.seen) == 1
    assert left_in(tmp_path) == {"weights.pth.lock"}


def test_a_server_that_promises_the_size_and_sends_less_is_asked_until_it_brings_nothing(
    web: Web, tmp_path: Path
) -> None:
    """And then the error says that it breaks off."""
    web.body, web.length, web.ranges = BODY[:1000], len(BODY), False
    with pytest.raises(StorageError, match="cannot be fetched"):
        fetch(web, tmp_path / "weights.pth")
    assert len(web.seen) == 4


@pytest.mark.parametrize("status", ["404", "403"])
def test_no_such_file_is_not_asked_for_again(web: Web, tmp_path: Path, status: str) -> None:
    web.answers = [status]
    with pytest.raises(ConfigError, match=f"the server says {status}"):
        fetch(web, tmp_path / "weights.pth")
    assert len(web.seen) == 1


def test_no_server_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"cannot be fetched: .*refused"):
        fetch(Web("http://127.0.0.1:9/weights.pth"), tmp_path / "weights.pth")


def test_a_folder_that_cannot_be_written_is_named(web: Web, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"file/weights\.pth cannot be written"):
        fetch(web, tmp_path / "file" / "weights.pth")


def test_two_at_once_fetch_it_once(web: Web, tmp_path: Path) -> None:
    """The second waits for the first, whose server holds its answer back until both are there."""
    web.held = threading.Event()
    threads = [threading.Thread(target=fetch, args=(web, tmp_path / "weights.pth")) for _ in range(2)]
    for thread in threads:
        thread.start()
    web.held.set()
    for thread in threads:
        thread.join(30)
    assert (tmp_path / "weights.pth").read_bytes() == BODY
    assert len(web.seen) == 1


def test_a_read_takes_no_more_than_a_piece(web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """2.5 GB must not be in memory."""
    monkeypatch.setattr(module, "PIECE", 100_000)
    assert fetch(web, tmp_path / "weights.pth") == [100_000, 200_000, 300_000, 400_000, 500_000, 512_000]
