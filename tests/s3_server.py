"""An S3 server for the tests: moto in a process of its own, with conditional creation made atomic.

moto looks whether a key exists and then writes it, in two steps; here a lock around everything that writes makes the
two one, as they are on real servers. Run as a script it prints its port and serves until it is killed.
"""

from __future__ import annotations

import io
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Application = Callable[[dict[str, Any], Any], Iterable[bytes]]
S3_ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": "/dev/null",
    "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
}
"""What its clients must have in their environment: credentials, and nothing of this machine's own."""


def one_writer_at_a_time(application: Application) -> Application:
    lock = threading.Lock()

    def serve(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] in ("GET", "HEAD"):
            return application(environ, start_response)
        expected = int(environ.get("CONTENT_LENGTH") or 0)
        # The body is taken before the lock, so that one slow or broken writer does not stop the others.
        body = environ["wsgi.input"].read(expected)
        if len(body) != expected:
            start_response("400 Bad Request", [("Content-Length", "0")])
            return [b""]
        environ["wsgi.input"] = io.BytesIO(body)
        with lock:
            return [b"".join(application(environ, start_response))]

    return serve


def main() -> None:
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    application = one_writer_at_a_time(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, application, threaded=True)
    sys.stdout.write(f"{server.server_port}\n")
    sys.stdout.flush()
    server.serve_forever()


@contextmanager
def running_server() -> Iterator[str]:
    """The server's URL, while it runs."""
    with subprocess.Popen(
        [sys.executable, str(Path(__file__))], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            assert process.stdout is not None
            port = process.stdout.readline().strip()
            assert port, f"the S3 server ended before it served, with {process.wait()}"
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()


if __name__ == "__main__":
    main()
