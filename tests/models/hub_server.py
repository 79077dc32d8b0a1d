"""A server on this machine that answers as the Hugging Face hub does, for one repository, and serves plain files.

Only what `snapshot_download` asks for: the commit of `main`, the tree of a commit, HEAD and GET of a file, ranges too.
Faults are switched on by `fault`: "cut" (the connection ends early), "damaged" (other bytes of the same length),
"gated" (this user may not), "short" (a plain file without its last bytes, of which the header does not tell).
"""

import hashlib
import json
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

COMMIT = "c0ffee" + "0" * 34


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler], hub):
    """Serve on a free port in a thread while the block runs; handlers find `hub`, which gets its `url`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (handler,), {"hub": hub}))
    server.daemon_threads = True
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


class HubServer:
    """Serves the files below `folder` as the repository `source` at COMMIT, and as plain files below /plain/."""

    def __init__(self, source: str, folder: Path):
        self.source, self.folder, self.fault = source, folder, None
        self.asked: list[str] = []  # method, path and range of each request
        self.left = 10**9  # bytes that are sent before connections end, with the fault "cut"

    @contextmanager
    def running(self):
        """Serve in a thread while the block runs; `url` is where."""
        with serving(_Handler, self):
            yield self

    def tree(self) -> list[dict]:
        """What the hub says of the files: a large one, here any of tensors, is kept by its sha256."""
        return [self._entry(path) for path in sorted(self.folder.rglob("*")) if path.is_file()]

    def _entry(self, path: Path) -> dict:
        content = path.read_bytes()
        oid = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        entry = {"type": "file", "path": path.relative_to(self.folder).as_posix(), "size": len(content), "oid": oid}
        if path.suffix in (".safetensors", ".bin"):
            sha256 = hashlib.sha256(content).hexdigest()
            entry["lfs"] = {"oid": sha256, "size": len(content), "pointerSize": 134}
        return entry


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self._answer(body=False)

    def do_GET(self):
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        hub, path = self.hub, self.path.partition("?")[0]
        hub.asked.append(f"{self.command} {path} {self.headers.get('Range', '')}".strip())
        if hub.fault == "gated":
            return self._send(403, b"{}", body, {"X-Error-Code": "GatedRepo", "X-Error-Message": "ask for access"})
        if path.startswith(f"/api/models/{hub.source}/tree/"):
            return self._send(200, json.dumps(hub.tree()).encode(), body)
        if path.startswith(f"/api/models/{hub.source}"):
            return self._send(200, json.dumps({"id": hub.source, "sha": COMMIT, "siblings": []}).encode(), body)
        name = path.removeprefix(f"/{hub.source}/resolve/").partition("/")[2]
        plain = path.startswith("/plain/")
        file = hub.folder / (path.removeprefix("/plain/") if plain else name)
        if not file.is_file():
            return self._send(404, b"", body, {"X-Error-Code": "EntryNotFound"})
        entry, content = hub._entry(file), file.read_bytes()
        if hub.fault == "damaged" and ("lfs" in entry or plain):
            content = content[:-1] + bytes([content[-1] ^ 1])
        if hub.fault == "short":
            content = content[:-8]
        etag = entry["lfs"]["oid"] if "lfs" in entry else entry["oid"]
        self._send(200, content, body, {} if plain else {"X-Repo-Commit": COMMIT, "ETag": f'"{etag}"'})

    def _send(self, status: int, content: bytes, body: bool, headers: dict[str, str] | None = None) -> None:
        total, start = len(content), 0
        if wanted := self.headers.get("Range"):
            start = int(wanted.removeprefix("bytes=").partition("-")[0])
            status, content = 206, content[start:]
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if not body:
            return
        large = self.hub.fault == "cut" and total > 1000  # the small ones arrive
        sent = content[: self.hub.left] if large else content
        self.wfile.write(sent)
        if len(sent) < len(content):
            self.hub.left = 0
            self.close_connection = True
