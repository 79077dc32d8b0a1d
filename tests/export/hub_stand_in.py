"""A server on this machine that takes uploads as the Hugging Face hub does, and keeps them in memory."""

import base64
import json
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

from tests.models.hub_server import COMMIT, serving


class HubStandIn:
    """`repositories`: "models/owner/name" -> whether it is private, and its files; `token`: the only one it takes."""

    def __init__(self, token: str):
        self.token, self.repositories = token, {}

    @contextmanager
    def running(self):
        """Serve in a thread while the block runs; `url` is where."""
        with serving(_Handler, self):
            yield self

    def answer(self, path: str, body: bytes) -> tuple[int, dict]:
        """Status and JSON of a request."""
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked.get('type', 'model')}s/{asked['organization']}/{asked['name']}"
            if name in self.repositories:
                return 409, {"error": "You already created this repo", "url": f"{self.url}/{name}"}
            self.repositories[name] = {"private": asked["visibility"] == "private", "files": {}}
            return 200, {"url": f"{self.url}/{name.removeprefix('models/')}"}
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        kind, owner, name, *action = path.removeprefix("/api/").split("/")
        files = self.repositories[f"{kind}/{owner}/{name}"]["files"]
        if action[0] == "preupload":
            wanted = [file["path"] for file in json.loads(body)["files"]]
            modes = [{"path": p, "uploadMode": "regular", "shouldIgnore": False, "oid": None} for p in wanted]
            return 200, {"files": modes}
        if action[0] == "commit":
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            return 200, {
                "commitUrl": f"{self.url}/{owner}/{name}/commit/{COMMIT}",
                "commitOid": COMMIT,
                "hookOutput": "",
            }
        return 200, {"id": f"{owner}/{name}", "sha": COMMIT, "siblings": []}


class _Handler(BaseHTTPRequestHandler):
    hub: HubStandIn
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        self._answer(b"")

    def do_POST(self):
        if self.headers.get("Transfer-Encoding") == "chunked":
            return self._answer(b"".join(iter(self._chunk, b"")))
        self._answer(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def _chunk(self) -> bytes:
        content = self.rfile.read(int(self.rfile.readline(), 16))
        self.rfile.readline()
        return content

    def _answer(self, body: bytes) -> None:
        known = self.headers.get("Authorization") == f"Bearer {self.hub.token}"
        path = self.path.partition("?")[0]
        status, answer = self.hub.answer(path, body) if known else (401, {"error": "Invalid username or password."})
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
