"""An S3 on loopback that does what a test says, and what real stores, proxies and gateways do now and then.

`Odd.quirks` holds the names of what is odd; some have a value. Without any it is a plain, honest store of one bucket.
"""

import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

import boto3
from botocore.config import Config

AT = "2026-01-02T03:04:05.678Z"
MODIFIED = "Fri, 02 Jan 2026 03:04:05 GMT"


@dataclass
class Odd:
    """The store: objects by key, what is odd about it, and the requests that it got."""

    objects: dict[str, bytes] = field(default_factory=dict)
    quirks: dict[str, Any] = field(default_factory=dict)
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    port: int = 0

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self, **more: Any) -> Any:
        config: dict[str, Any] = {"retries": {"total_max_attempts": 1}, "connect_timeout": 2, "read_timeout": 5}
        return boto3.client(
            "s3", endpoint_url=self.endpoint, aws_access_key_id="k", aws_secret_access_key="s",
            region_name="us-east-1", config=Config(**config | more),
        )  # fmt: skip

    def etag(self, key: str) -> str:
        return hashlib.md5(self.objects[key]).hexdigest()


@contextmanager
def odd_store(objects: dict[str, bytes] | None = None, **quirks: Any) -> Iterator[Odd]:
    odd = Odd(dict(objects or {}), dict(quirks))

    class Handler(_Handler):
        store = odd

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    odd.port = server.server_port
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield odd
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    store: Odd
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None: ...

    def quirk(self, name: str) -> Any:
        return self.store.quirks.get(name)

    def asked(self) -> tuple[str, dict[str, str]]:
        url = urlsplit(self.path)
        self.store.requests.append((self.command, self.path, dict(self.headers.items())))
        return unquote(url.path).lstrip("/").partition("/")[2], {
            name: values[0] for name, values in parse_qs(url.query, keep_blank_values=True).items()
        }

    def do_GET(self) -> None:
        key, query = self.asked()
        if self.quirk("web_page"):
            self.say(200, b"<!doctype html><html><head><title>Console<meta></head></html>")
        elif key:
            self.object(key)
        elif "versioning" in query:
            self.versioning()
        elif "versions" in query:
            self.versions(query)
        else:
            self.listing(query)

    do_HEAD = do_GET  # noqa: N815 - as the base class calls it

    def do_PUT(self) -> None:
        key, _ = self.asked()
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.quirk("web_page"):
            self.say(200, b"<!doctype html>")
            return
        if origin := self.headers.get("x-amz-copy-source"):
            source = unquote(origin.partition("?")[0]).partition("/")[2]
            if self.quirk("copy_says_gone"):
                self.refuse(412, "PreconditionFailed")
                return
            self.store.objects[key] = self.quirk("copies") or self.store.objects[source]
            self.trickle(b"<CopyObjectResult>" + b" " * 30 + b"</CopyObjectResult>", "slow_copy")
            return
        has_checksum = any(name.lower().startswith(("content-md5", "x-amz-checksum-")) for name in self.headers)
        if self.quirk("object_lock") and not has_checksum:
            self.refuse(400, "InvalidRequest", "Content-MD5 is required")
            return
        self.store.objects[key] = body
        etag = self.store.etag(key)
        if self.quirk("probe_vanishes"):
            del self.store.objects[key]
        self.say(200, b"", {"ETag": f'"{etag}"'})

    def do_DELETE(self) -> None:
        key, _ = self.asked()
        wanted = self.headers.get("If-Match", "").strip('"')
        is_there = key in self.store.objects
        is_refused = self.quirk("delete_says_gone") and not key.endswith("probe")
        if is_there and (is_refused or (wanted and wanted != self.store.etag(key))):
            self.refuse(412, "PreconditionFailed")
        elif not is_there and wanted:
            self.refuse(404, "NoSuchKey")
        else:
            self.store.objects.pop(key, None)
            self.say(204, b"")

    # --- listings

    def versioning(self) -> None:
        state = self.quirk("versioning")
        if isinstance(state, tuple):
            self.refuse(*state)
        else:
            status = f"<Status>{state}</Status>" if state else ""
            self.say(200, f"<VersioningConfiguration>{status}</VersioningConfiguration>".encode())

    def page(self, query: dict[str, str], after: str) -> tuple[list[str], bool]:
        keys = sorted(key for key in self.store.objects if key.startswith(query.get("prefix", "")))
        start = "" if self.quirk("ignores_marks") else after
        left = [key for key in keys if key > start]
        size = min(int(query.get("max-keys", 1000)), self.quirk("page") or 1000)
        page = left[:size]
        if self.quirk("repeats"):
            page = [key for key in page for _ in range(2)]
        return page, len(left) > size

    def listing(self, query: dict[str, str]) -> None:
        prefix = query.get("prefix", "")
        if isinstance(refused := self.quirk("list"), tuple):
            self.refuse(*refused)
            return
        if self.quirk("directory") and prefix and not prefix.endswith("/"):
            self.refuse(400, "InvalidRequest", "a prefix has to end in a delimiter")
            return
        if self.quirk("nothing"):
            token = f"t{len(self.store.requests)}"
            body = f"<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>{token}"
            self.say(200, f"{body}</NextContinuationToken></ListBucketResult>".encode())
            return
        after = query.get("continuation-token") or query.get("start-after") or ""
        keys, more = self.page(query, after)
        token = "same" if self.quirk("same_token") else keys[-1] if keys else ""
        told = "" if not more or self.quirk("no_token") else f"<NextContinuationToken>{token}</NextContinuationToken>"
        cut = "" if self.quirk("no_truncated") else f"<IsTruncated>{str(more).lower()}</IsTruncated>"
        rows = "".join(f"<Contents>{self.entry(key)}</Contents>" for key in keys)
        self.trickle(f"<ListBucketResult><Name>b</Name>{cut}{told}{rows}</ListBucketResult>".encode(), "slow_list")

    def versions(self, query: dict[str, str]) -> None:
        if isinstance(refused := self.quirk("versions"), tuple):
            self.refuse(*refused)
            return
        keys, more = self.page(query, query.get("key-marker", ""))
        following = "" if not more or self.quirk("no_token") else f"<NextKeyMarker>{keys[-1]}</NextKeyMarker>"
        latest = "" if self.quirk("no_latest") else "<IsLatest>true</IsLatest>"
        rows = "".join(
            f"<Version>{self.entry(key)}<VersionId>v-{self.store.etag(key)[:6]}</VersionId>{latest}</Version>"
            for key in keys
        )
        body = f"<ListVersionsResult><Name>b</Name><IsTruncated>{str(more).lower()}</IsTruncated>{following}{rows}"
        self.say(200, f"{body}</ListVersionsResult>".encode())

    def entry(self, key: str) -> str:
        size = (self.quirk("listed_sizes") or {}).get(key, len(self.store.objects[key]))
        parts = {
            "Key": escape(key), "LastModified": AT, "Size": size, "StorageClass": "STANDARD",
            "ETag": f"&quot;{self.quirk('etag') or self.store.etag(key)}&quot;",
        }  # fmt: skip
        left_out = ["LastModified"] if key == self.quirk("untimed") else self.quirk("without") or ()
        return "".join(f"<{name}>{value}</{name}>" for name, value in parts.items() if name not in left_out)

    # --- objects

    def object(self, key: str) -> None:
        if isinstance(refused := self.quirk("get"), tuple) and self.command == "GET":
            self.refuse(*refused)
            return
        if isinstance(refused := self.quirk("head"), tuple) and self.command == "HEAD":
            self.refuse(*refused)
            return
        if key not in self.store.objects:
            self.refuse(404, "NoSuchKey")
            return
        body = self.store.objects[key]
        etag = f'"{self.quirk("etag") or self.store.etag(key)}"'
        pinned = self.headers.get("If-Match")
        if pinned and pinned != etag and not self.quirk("ignores_if_match"):
            self.refuse(412, "PreconditionFailed")
            return
        if self.quirk("slow_headers") and self.command == "GET":
            self.wfile.write(b"HTTP/1.1 200 OK\r\n")
            try:
                for _ in range(200):
                    self.wfile.write(b"x: y\r\n")
                    self.wfile.flush()
                    time.sleep(0.02)
            except OSError:
                pass
            self.close_connection = True
            return
        if self.quirk("silent") and self.command == "GET":
            time.sleep(self.quirk("silent"))
            self.close_connection = True
            return
        headers = {"ETag": etag, "Last-Modified": MODIFIED} | (self.quirk("headers") or {})
        for name in self.quirk("without") or ():
            headers.pop(name, None)
        answered = self.quirk("answers")
        if answered is not None and self.command == "GET":
            body = answered
        if self.quirk("no_length"):
            self.send_response(200)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Connection", "close")
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)
            self.close_connection = True
            return
        self.trickle(body, "slow_body", headers)

    # --- answers

    def trickle(self, body: bytes, quirk: str, headers: dict[str, str] | None = None) -> None:
        """An answer, a byte at a time where that is the quirk, for as long as somebody listens."""
        if self.command == "HEAD" or not self.quirk(quirk):
            self.say(200, body, headers)
            return
        self.send_response(200)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        try:
            for byte in body:
                self.wfile.write(bytes([byte]))
                self.wfile.flush()
                time.sleep(0.02)
        except OSError:
            self.close_connection = True

    def refuse(self, status: int, code: str, message: str = "no") -> None:
        body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{escape(message)}</Message></Error>"
        self.say(status, body.encode())

    def say(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
