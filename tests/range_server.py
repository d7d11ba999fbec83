"""A static web server on a free port that honours Range requests, or, as many do, ignores them."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@contextmanager
def serving(folder: Path, *, ranges: bool = True, busy: int = 0) -> Iterator[tuple[str, list[str]]]:
    """The URL of ``folder``, and the list of requests as they come, each as ``path`` or ``path [first-last]``.

    The first ``busy`` requests of every kind are answered with "service unavailable".
    """
    requests: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, folder, requests, (ranges, busy)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", requests
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16  # head and body in one packet: two would wait for each other, 40 ms a request

    def __init__(self, folder: Path, requests: list[str], manners: tuple[bool, int], *rest) -> None:
        self._folder, self._requests, (self._ranges, self._busy) = folder, requests, manners
        super().__init__(*rest)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, with_body: bool) -> None:
        asked = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        request = self.path + (f" [{asked[1]}-{asked[2]}]" if asked else "")
        self._requests.append(request)
        if self._requests.count(request) <= self._busy:
            self._send(HTTPStatus.SERVICE_UNAVAILABLE, b"", with_body)
            return
        file = self._folder / self.path.lstrip("/")
        if not file.is_file():
            self._send(HTTPStatus.NOT_FOUND, b"", with_body)
            return
        data = file.read_bytes()
        if asked is None or not self._ranges:
            self._send(HTTPStatus.OK, data, with_body)
        elif asked[1] == "":
            self._send(HTTPStatus.PARTIAL_CONTENT, data[-int(asked[2]) :], with_body)
        elif int(asked[1]) >= len(data):
            self._send(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, b"", with_body)
        else:
            last = int(asked[2] or len(data))
            self._send(HTTPStatus.PARTIAL_CONTENT, data[int(asked[1]) : last + 1], with_body)

    def _send(self, status: HTTPStatus, body: bytes, with_body: bool) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body:
            self.wfile.write(body)
