"""A real image registry on loopback, behind a password, for what pulls images."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import urllib.request
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from support.daemons import Daemon
from support.images import Image
from support.ports import free_port

USER, PASSWORD = "deploy", "let-me-pull"
HTPASSWD = "deploy:$2y$05$abcdefghijklmnopqrstuucCZeJdrAgCPNDV0D5WMVlxjAoEEY.vu\n"  # bcrypt of PASSWORD

CONFIG = """\
version: 0.1
log: {{level: warn}}
storage:
  filesystem: {{rootdirectory: {folder}/data}}
  delete: {{enabled: true}}
http: {{addr: "127.0.0.1:{port}"}}
auth:
  htpasswd: {{realm: tests, path: {folder}/htpasswd}}
"""

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
CONTENT = "application/vnd.docker.container.image.v1+json"
LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"


class Registry(Daemon):
    """``docker-registry``, Debian's package of the reference registry. Its port stays as long as its folder."""

    user, password = USER, PASSWORD

    @cached_property
    def port(self) -> int:
        said = self.folder / "port"
        if not said.exists():
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            said.write_text(str(free_port()))
        return int(said.read_text())

    @property
    def address(self) -> str:
        """What an image's name starts with: ``127.0.0.1:PORT``."""
        return f"127.0.0.1:{self.port}"

    def command(self) -> Sequence[str | Path]:
        return ("docker-registry", "serve", self.folder / "config.yml")

    def start(self) -> None:
        config = CONFIG.format(folder=self.folder, port=self.port)  # asking for the port makes the folder
        (self.folder / "config.yml").write_text(config)
        (self.folder / "htpasswd").write_text(HTPASSWD)
        super().start()

    def ready(self) -> bool:
        try:
            self._call("GET", "/v2/")
        except OSError:
            return False
        return True

    def docker_config(self, folder: Path) -> Path:
        """Write ``config.json`` as ``docker login`` does; the folder is for DOCKER_CONFIG."""
        folder.mkdir(parents=True, exist_ok=True)
        auths = {self.address: {"auth": self._token}}
        (folder / "config.json").write_text(json.dumps({"auths": auths}))
        return folder

    def push(self, image: Image, name: str) -> str:
        """Put ``image`` there as ``name`` ("shop/web:1"), moving the tag. Its digest: ``sha256:...``."""
        repository, _, tag = name.partition(":")
        layers = [self._put_blob(repository, LAYER, gzip.compress(layer.data, 1, mtime=0)) for layer in image.layers]
        config = self._put_blob(repository, CONTENT, image.config_file)
        document = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers}
        manifest = json.dumps(document).encode()
        self._call("PUT", f"/v2/{repository}/manifests/{tag or 'latest'}", manifest, MANIFEST)
        return f"sha256:{hashlib.sha256(manifest).hexdigest()}"

    def delete(self, repository: str, digest: str) -> None:
        """Take the image away again."""
        self._call("DELETE", f"/v2/{repository}/manifests/{digest}")

    def _put_blob(self, repository: str, kind: str, data: bytes) -> dict[str, object]:
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        where = self._call("POST", f"/v2/{repository}/blobs/uploads/").headers["Location"]
        mark = "&" if "?" in where else "?"
        self._call("PUT", f"{where}{mark}digest={digest}", data, "application/octet-stream")
        return {"mediaType": kind, "size": len(data), "digest": digest}

    @property
    def _token(self) -> str:
        return base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()

    def _call(self, method: str, path: str, data: bytes | None = None, kind: str = "") -> urllib.request.addinfourl:
        url = path if path.startswith("http") else f"http://{self.address}{path}"
        headers = {"Authorization": f"Basic {self._token}", **({"Content-Type": kind} if kind else {})}
        request = urllib.request.Request(url, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer  # type: ignore[no-any-return]
