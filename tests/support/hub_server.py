"""A small server on this machine that speaks the API of the Hugging Face hub."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class HubState:
    """The repositories of a hub: ``models/OWNER/NAME`` or ``datasets/OWNER/NAME`` → its files."""

    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    """The paths of all requests."""
    created: list[dict[str, Any]] = field(default_factory=list)
    """What was asked when a repository was created."""
    objects: dict[str, bytes] = field(default_factory=dict)
    """Uploaded large files by their SHA-256."""
    refuses: int | None = None
    """The HTTP status of every request to write, if the user may not."""

    def add_folder(self, repo: str, folder: Path) -> None:
        """Add a model with the files of a folder."""
        files = {f.relative_to(folder).as_posix(): f.read_bytes() for f in folder.rglob("*.*")}
        self.repositories[f"models/{repo}"] = files


class Hub(BaseHTTPRequestHandler):
    """Answers about repositories and their files, and takes commits."""

    protocol_version = "HTTP/1.1"

    def __init__(self, state: HubState, *arguments: Any) -> None:
        self.state = state
        super().__init__(*arguments)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def answer(self, *, with_body: bool) -> None:
        path = unquote(self.path.partition("?")[0])
        self.state.asked.append(path)
        for repo, files in self.state.repositories.items():
            api, plain = f"/api/{repo}", "/" + repo.removeprefix("models/")
            resolved = f"{plain}/resolve/"
            if path == api or path.startswith(f"{api}/revision/"):
                siblings = [{"rfilename": name} for name in files]
                described = {"id": repo.partition("/")[2], "sha": COMMIT, "siblings": siblings}
                return self.send(json.dumps(described).encode())
            if path.startswith(f"{api}/tree/"):
                tree = [
                    {"type": "file", "path": name, "size": len(content), "oid": sha1(content)}
                    for name, content in files.items()
                ]
                return self.send(json.dumps(tree).encode())
            if path.startswith(resolved):
                name = path.removeprefix(resolved).partition("/")[2]
                if name in files:
                    kind = "application/octet-stream"
                    return self.send(files[name], with_body=with_body, kind=kind)
                return self.send(b"{}", status=404, error="EntryNotFound")
        return self.send(b"{}", status=404, error="RepoNotFound")

    def do_POST(self) -> None:
        path = unquote(self.path.partition("?")[0])
        self.state.asked.append(path)
        body = self.body()
        refused = self.state.refuses
        status, value = (refused, {}) if refused else self.written(path, body)
        self.send(json.dumps(value).encode(), status=status)

    def written(self, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
        """Do what a request asks; return the status and the answer."""
        host = f"http://{self.headers['Host']}"
        status = 200
        answer: dict[str, Any] = {}
        if path == "/api/validate-yaml":
            answer = {"errors": [], "warnings": []}
        elif path == "/api/repos/create":
            wanted = json.loads(body)
            repo = f"{wanted.get('type') or 'model'}s/{wanted['organization']}/{wanted['name']}"
            self.state.created.append(wanted)
            status = 409 if repo in self.state.repositories else 200
            self.state.repositories.setdefault(repo, {})
            answer = {"url": f"{host}/{repo.removeprefix('models/')}"}
        elif path.endswith("/info/lfs/objects/batch"):
            objects = [self.upload_of(each, host) for each in json.loads(body)["objects"]]
            answer = {"transfer": "basic", "objects": objects}
        elif "/preupload/" in path:
            answer = {"files": [mode_of(each["path"]) for each in json.loads(body)["files"]]}
        elif "/commit/" in path:
            repo = path.removeprefix("/api/").partition("/commit/")[0]
            self.commit(self.state.repositories[repo], body)
            url = f"{host}/{repo}/commit/{COMMIT}"
            answer = {"success": True, "commitOid": COMMIT, "commitUrl": url}
        else:
            status = 404
        return status, answer

    def do_PUT(self) -> None:
        content = self.body()
        oid = self.path.rpartition("/")[2]
        wrong = hashlib.sha256(content).hexdigest() != oid
        self.state.objects[oid] = content
        self.send(b"{}", status=400 if wrong else 200)

    def commit(self, files: dict[str, bytes], body: bytes) -> None:
        for line in body.splitlines():
            change = json.loads(line)
            value = change["value"]
            if change["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif change["key"] == "lfsFile":
                files[value["path"]] = self.state.objects[value["oid"]]
            elif change["key"] == "deletedFile":
                del files[value["path"]]

    def upload_of(self, wanted: dict[str, Any], host: str) -> dict[str, Any]:
        href = f"{host}/uploads/{wanted['oid']}"
        return {**wanted, "actions": {"upload": {"href": href}}}

    def body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        content = b""
        while size := int(self.rfile.readline(), 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return content

    def send(
        self,
        body: bytes,
        *,
        status: int = 200,
        with_body: bool = True,
        kind: str = "application/json",
        error: str | None = None,
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{sha1(body)}"')
        self.send_header("X-Repo-Commit", COMMIT)
        if error:
            self.send_header("X-Error-Code", error)
            self.send_header("X-Error-Message", "not found")
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep the tests' output clean."""


LARGE = (".safetensors", ".parquet", ".h5", "/c/0/0/0", ".bin")
"""The ends of the names of files that are uploaded by git LFS."""


def mode_of(path: str) -> dict[str, Any]:
    mode = "lfs" if path.endswith(LARGE) else "regular"
    return {"path": path, "uploadMode": mode, "shouldIgnore": False}


def sha1(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


@contextmanager
def hub_server(state: HubState, port: int = 0) -> Iterator[str]:
    """Serve the repositories; yield the address."""
    server = ThreadingHTTPServer(("127.0.0.1", port), partial(Hub, state))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
