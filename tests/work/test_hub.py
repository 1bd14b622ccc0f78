"""Checkpoints on the Hugging Face Hub, with huggingface_hub itself and a server that answers as the Hub does."""

from __future__ import annotations

import hashlib
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants

from jobs.submit import submit_job
from jobs.weights import main
from model.load import BUNDLED
from pipeline.errors import ConfigError
from pipeline.settings import ModelSettings, RunSettings, Settings, SubmitJob
from pipeline.storage.store import Store
from pipeline.work.hub import fetched_from_hub, is_on_hub
from pipeline.work.weights import weights_from_settings
from tests.commands import command_of
from tests.fakes_run import Notes

COMMIT = "0123456789abcdef0123456789abcdef01234567"
ADDRESS = "hf://somebody/fine-tune/deep/small.safetensors"
KEPT = f"hf://somebody/fine-tune@{COMMIT}/deep/small.safetensors"
BODY = BUNDLED["small"].read_bytes()
ERRORS = {"GatedRepo": 403, "RepoNotFound": 401, "RevisionNotFound": 404, "EntryNotFound": 404}
"""What the Hub says in its header X-Error-Code, and its status."""


class Hub:
    """What it was asked for, and the error that it answers with, one of ERRORS or a status."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.error = ""


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The bundled weights as a file of somebody's repository, and an empty cache."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.answer(b"")

        def do_GET(self) -> None:
            self.answer(BODY)

        def answer(self, body: bytes) -> None:
            hub.seen.append(f"{self.command} {self.path}")
            if hub.error:
                self.send_response(ERRORS.get(hub.error) or int(hub.error))
                if hub.error in ERRORS:
                    self.send_header("X-Error-Code", hub.error)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(200)
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{hashlib.sha256(BODY).hexdigest()}"')
            self.send_header("Content-Length", str(len(BODY)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield hub
        server.shutdown()
        thread.join()


def settings(checkpoint: str, *, address: str = "local") -> Settings:
    return Settings(model=ModelSettings(checkpoint=checkpoint), run=RunSettings(address=address))


def test_a_run_fetches_the_file_once_and_says_its_commit(hub: Hub, store: Store) -> None:
    notes = Notes()
    weights = weights_from_settings(settings(ADDRESS), store, progress=notes)
    assert weights.sha256 == hashlib.sha256(BODY).hexdigest()
    assert notes.sentences == [
        f"fetching {ADDRESS}, unless it is in the cache of the Hub",
        f"{ADDRESS} is commit {COMMIT}; {KEPT} keeps it",
    ]
    weights_from_settings(settings(ADDRESS), store, progress=Notes())
    assert sum(each.startswith("GET") for each in hub.seen) == 1


def test_a_commit_that_is_in_the_cache_needs_no_hub(hub: Hub) -> None:
    fetched_from_hub(KEPT, Notes())
    assert all(f"/somebody/fine-tune/resolve/{COMMIT}/deep/small.safetensors" in each for each in hub.seen)
    asked = len(hub.seen)
    notes = Notes()
    assert fetched_from_hub(KEPT, notes).read_bytes() == BODY
    assert len(hub.seen) == asked
    assert len(notes.sentences) == 1


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        ("GatedRepo", "give it at https://huggingface.co/somebody/fine-tune, and set HF_TOKEN"),
        ("RepoNotFound", "there is no repository somebody/fine-tune, or it is private"),
        ("RevisionNotFound", "somebody/fine-tune has no revision v2"),
        ("EntryNotFound", "somebody/fine-tune has no file small.safetensors there"),
        ("418", "cannot be fetched now"),
    ],
)
def test_what_the_hub_refuses_is_one_sentence(hub: Hub, error: str, sentence: str) -> None:
    hub.error = error
    with pytest.raises(ConfigError) as caught:
        fetched_from_hub("hf://somebody/fine-tune@v2/small.safetensors", Notes())
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_a_network_the_way_out_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match=r"cannot be fetched now: .*set model\.checkpoint to the file"):
        fetched_from_hub(ADDRESS, Notes())


@pytest.mark.parametrize("address", ["hf://", "hf://name/file.pt", "hf://a/b", "hf://a/b@/f.pt", "hf://a/b@main"])
def test_an_address_that_is_none_is_refused_with_the_form(address: str) -> None:
    assert is_on_hub(address)
    with pytest.raises(ConfigError, match="is to be hf://owner/name/file or hf://owner/name@revision/file"):
        fetched_from_hub(address, Notes())


def test_several_machines_get_a_copy_by_a_command_that_is_told(hub: Hub, store: Store) -> None:
    told = f"make weights MODEL={ADDRESS} TO=s3://bucket/weights puts small.safetensors there"
    with pytest.raises(ConfigError, match=told):
        weights_from_settings(settings(ADDRESS, address="auto"), store, progress=Notes())
    run, model = RunSettings(address="auto"), ModelSettings(checkpoint=ADDRESS)
    with pytest.raises(ConfigError, match=told):
        submit_job(SubmitJob(source="s3://b/in", out="s3://b/out", run=run, model=model))
    assert hub.seen == []


def test_the_command_puts_a_copy_there(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = command_of("weights", main, monkeypatch, capsys)
    code, out, _ = command(f"name={ADDRESS}", f"to={tmp_path / 'shared'}")
    copy = tmp_path / "shared" / "small.safetensors"
    assert (code, copy.read_bytes()) == (0, BODY)
    assert out == f"Maskmill: {copy} is the file {ADDRESS}; use it with model=... model.checkpoint={copy}\n"


def test_the_package_is_asked_for_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ConfigError, match="needs a package that is not installed: pip install huggingface_hub"):
        fetched_from_hub(ADDRESS, Notes())
