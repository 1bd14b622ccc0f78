"""What is special about the store on local disk: paths, folders, links, rights, room, and writers that die."""

from __future__ import annotations

import os
import pickle
import resource
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO

import pytest

from pipeline.errors import ChangedError, ConfigError, DeniedError, NotFoundError, StorageError
from pipeline.settings import StoreSettings
from pipeline.storage.connect import connect
from pipeline.storage.local import LocalStore
from pipeline.storage.store import Store
from tests.storage.few_rights import as_a_user_with_few_rights, folder_for_all

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def store() -> Store:
    return pickle.loads(pickle.dumps(connect(StoreSettings())))


def test_a_file_uri_names_what_its_path_names(store: Store, tmp_path: Path) -> None:
    """Users write either."""
    path = tmp_path / "new" / "50%25 é.bin"
    info = store.put_if_absent(path.as_uri(), b"0123456789")
    assert info is not None
    assert info == store.head(path.as_uri()) == store.head(str(path))
    assert info.uri == str(path)
    assert store.read(path.as_uri(), offset=2, length=3, etag=info.etag) == b"234"


def test_our_own_temporaries_are_not_listed_and_those_of_users_are(store: Store, tmp_path: Path) -> None:
    """Part of what a killed writer left is no image."""
    for name in (".tmp-mine.jpg", ".tmp-0123456789abcdef0123456789abcdef"):
        (tmp_path / name).write_bytes(b"x")
    assert [info.uri for info in store.list(str(tmp_path))] == [f"{tmp_path}/.tmp-mine.jpg"]


def test_a_tilde_is_the_home_folder(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell does not expand it behind `SHARD=`."""
    monkeypatch.setenv("HOME", str(tmp_path))
    store.put_if_absent("~/a/b", b"x")
    assert (tmp_path / "a" / "b").read_bytes() == b"x"


def test_bytes_are_on_the_disk_before_they_have_a_name_and_the_name_before_success_is_said(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a power cut a part is whole or not there, and one that was reported is there."""
    calls: list[str] = []
    fsync, link = os.fsync, os.link

    def noted_fsync(descriptor: int) -> None:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            calls.append("folder ." if os.path.samestat(status, tmp_path.stat()) else "folder data")
        else:
            calls.append(f"{status.st_size} bytes")
        fsync(descriptor)

    def noted_link(source: str, target: str) -> None:
        calls.append(f"link {Path(target).name}")
        link(source, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "link", noted_link)
    assert store.put_if_absent(str(tmp_path / "data" / "part"), b"12345")
    assert calls == ["folder .", "5 bytes", "link part", "folder data"]
    calls.clear()
    assert not store.put_if_absent(str(tmp_path / "data" / "part"), b"12345")
    assert calls == ["folder data"], "somebody else's part is a part only once it is on the disk"


def test_a_creator_killed_in_the_middle_leaves_nothing_under_a_final_name(store: Store, tmp_path: Path) -> None:
    """SIGKILL at any moment: every file that a reader sees is whole, and the rest can be created again."""
    script = (
        "import sys\n"
        "from pipeline.settings import StoreSettings\n"
        "from pipeline.storage.connect import connect\n"
        "store = connect(StoreSettings())\n"
        "for number in range(10**6):\n"
        "    store.put_if_absent(f'{sys.argv[1]}/{number:07d}', b'%07d' % number * 1_000_000)\n"
        "    sys.stdout.write('.'); sys.stdout.flush()\n"
    )
    for turn in range(6):
        folder = tmp_path / str(turn)
        with subprocess.Popen([sys.executable, "-c", script, str(folder)], cwd=ROOT, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.read(2 + turn)
            _stop_while_writing(process.pid, folder)
            process.send_signal(signal.SIGKILL)
        found = list(store.list(str(folder)))
        assert len(found) >= 2 + turn
        for number, info in enumerate(found):
            assert info.uri == f"{folder}/{number:07d}"
            assert store.read(info.uri) == b"%07d" % number * 1_000_000
        assert _being_written(folder)
        assert store.put_if_absent(f"{folder}/{len(found):07d}", b"")


def _being_written(folder: Path) -> bool:
    return any(name.startswith(".tmp-") for name in os.listdir(folder))


def _stop_while_writing(pid: int, folder: Path) -> None:
    """Freeze the process at a moment at which it has a file half way."""
    while True:
        while not _being_written(folder):
            pass
        os.kill(pid, signal.SIGSTOP)
        os.waitpid(pid, os.WUNTRACED)
        if _being_written(folder):
            return
        os.kill(pid, signal.SIGCONT)


class TouchedStore(LocalStore):
    """Somebody writes to every file once it is open."""

    def open(self, uri: str, *, etag: str = "") -> BinaryIO:
        file = super().open(uri, etag=etag)
        os.utime(uri, ns=(1, 1))
        return file


def test_a_file_written_to_while_it_is_read_is_refused(tmp_path: Path) -> None:
    """It was the planned one when it was opened; what came may be half of one and half of the other."""
    path, store = tmp_path / "a.jpg", TouchedStore()
    path.write_bytes(b"planned")
    assert store.read(str(path)) == b"planned", "nobody said which version it should be"
    path.write_bytes(b"planned")
    with pytest.raises(ChangedError, match="was changed"):
        store.read(str(path), etag=store.head(str(path)).etag)


def test_what_is_not_there_is_named(store: Store, tmp_path: Path) -> None:
    """A folder, a file used as a folder, a NUL or an endless name are no files either; no other exception leaks."""
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "none", tmp_path / "file" / "x", tmp_path, tmp_path / ("n" * 300)):
        with pytest.raises(NotFoundError, match=r"check the path|is a folder"):
            store.read(str(path))
    assert list(store.list(str(tmp_path / "none"))) == []
    with pytest.raises(ConfigError, match="NUL"):
        store.head("a\0b")


def test_a_pipe_is_refused_and_not_waited_for(store: Store, tmp_path: Path) -> None:
    """Opening a FIFO blocks for ever."""
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(NotFoundError, match="no regular file"):
        store.read(str(tmp_path / "pipe.jpg"))
    assert list(store.list(str(tmp_path))) == []


def test_a_forbidden_folder_is_a_denied_error_that_names_it(store: Store) -> None:
    """The user must act, not the retry; and can give access to nothing that is not there."""
    with folder_for_all() as folder:
        folder.chmod(0o555)
        for path in (folder / "x", folder / "new" / "data" / "x"):
            with as_a_user_with_few_rights(), pytest.raises(DeniedError, match=f"give this user access to {folder}$"):
                store.put_if_absent(str(path), b"")


def test_a_write_for_which_there_is_no_room_leaves_nothing_and_says_so(store: Store, tmp_path: Path) -> None:
    """A full disk, a quota, or as here a limit on the size of files: half a part must not take up the rest."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(StorageError, match=r"no space left.*; free some and run again"):
            store.put_if_absent(str(tmp_path / "part"), bytes(1_000_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.listdir(tmp_path) == []
    assert store.put_if_absent(str(tmp_path / "part"), bytes(1_000_000))


@pytest.mark.parametrize("part", ["part", "data/part"])
def test_a_file_in_the_place_of_an_output_folder_is_the_users_to_move(store: Store, tmp_path: Path, part: str) -> None:
    """`out=` names an existing file, or lies below one, or below a link to a disk that is not mounted."""
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("file", "link"):
        with pytest.raises(ConfigError, match=f"{tmp_path}/{name} is to be a folder.* choose another output folder"):
            store.put_if_absent(f"{tmp_path}/{name}/{part}", b"")


def test_the_first_creation_in_a_folder_removes_old_temporaries_of_killed_writers(store: Store, tmp_path: Path) -> None:
    """They hold whole parts; what is young may be somebody's at work, and what is named otherwise is the user's."""
    names = {"old": ".tmp-" + "0" * 32, "young": ".tmp-" + "1" * 32, "mine": ".tmp-mine"}
    for age, name in names.items():
        (tmp_path / name).write_bytes(b"x")
        if age != "young":
            os.utime(tmp_path / name, (0, 0))
    assert store.put_if_absent(str(tmp_path / "part"), b"")
    assert sorted(os.listdir(tmp_path)) == sorted([names["young"], names["mine"], "part"])


def test_loops_of_symbolic_links_end_and_each_folder_is_listed_once(store: Store, tmp_path: Path) -> None:
    """A link to a parent must not hang the plan, nor bring every image twice."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.jpg").write_bytes(b"x")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "b").symlink_to(tmp_path / "a")
    (tmp_path / "self").symlink_to(tmp_path / "self")
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere")
    listed = [info.uri.removeprefix(f"{tmp_path}/") for info in store.list(str(tmp_path))]
    assert listed == ["a/1.jpg", "gone.jpg", "self"]
    with pytest.raises(NotFoundError):
        store.read(str(tmp_path / "gone.jpg"))


def test_a_name_that_is_no_utf8_keeps_a_uri_that_reads_it(store: Store, tmp_path: Path) -> None:
    """Old archives unpack to such names; they must reach the plan, which is UTF-8."""
    with open(os.fsencode(tmp_path) + b"/caf\xe9.jpg", "wb") as file:
        file.write(b"bytes")
    (info,) = store.list(str(tmp_path))
    assert info.uri.encode("utf-8").endswith(b"/caf%E9.jpg")
    assert store.read(info.uri, etag=info.etag) == b"bytes"
    assert store.head(info.uri) == info


def test_an_unknown_scheme_is_refused_with_the_known_ones(store: Store) -> None:
    """gs:// and https:// are what people try."""
    with pytest.raises(ConfigError, match=r"no store for gs://; use s3://"):
        store.head("gs://bucket/a.jpg")
