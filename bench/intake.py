"""How many requests one `ingest serve` takes, and how long each waits: 10,000 from another process, on loopback.

    python bench/intake.py [--requests 10000] [--connections 32]

The store is moto's server in a third process: it is Python, and slower than a real one, so these figures are a floor.
"""

import argparse
import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import boto3

KEY = "key-of-the-bench"
BUCKET = "bench"


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--lines", type=int, default=10, help="in a body")
    parser.add_argument("--generate", metavar="PORT", type=int, help="the load generator itself")
    arguments = parser.parse_args()
    if arguments.generate:
        asyncio.run(_generate(arguments.generate, arguments.requests, arguments.connections, arguments.lines))
        return
    with tempfile.TemporaryDirectory(prefix="landfall-bench-") as name:
        _measure(Path(name), sys.argv[1:])


def _measure(folder: Path, arguments: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = os.environ | {
        "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{port}", "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_DEFAULT_REGION": "us-east-1", "INGEST_CONFIG": str(folder / "ingest.toml"),
        "PYTHONPATH": str(Path(__file__).parents[1]),
    }  # fmt: skip
    (folder / "ingest.toml").write_text(
        f'[[source]]\nname = "bench"\nbucket = "{BUCKET}"\nprefix = "landing/"\n'
        f'intake_keys = ["sha256:{sha256(KEY.encode()).hexdigest()}"]\n'
    )
    with _process(folder, environment, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)):
        client = boto3.client(
            "s3", endpoint_url=environment["AWS_ENDPOINT_URL_S3"], region_name="us-east-1", aws_access_key_id="x",
            aws_secret_access_key="x",
        )  # fmt: skip
        _wait(port)
        client.create_bucket(Bucket=BUCKET)
        with _process(folder, environment, "-m", "ingest", "serve", "--port", "0", "--json") as serving:
            assert serving.stdout
            told = json.loads(serving.stdout.readline())
            before = _cpu(serving.pid)
            subprocess.run([sys.executable, __file__, *arguments, "--generate", str(told["port"])], check=True)
            print(f"processor time of the intake {_cpu(serving.pid) - before:.1f} s")
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
        sizes = [entry["Size"] for page in pages for entry in page.get("Contents", [])]
        print(f"{len(sizes):,} objects, {sum(sizes) / 1e6:.1f} MB")


def _wait(port: int) -> None:
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    sys.exit("the store does not start")


@contextmanager
def _process(folder: Path, environment: Mapping[str, str], *words: str) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, *words]
    with (folder / "log").open("ab") as log, subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=log, text=True
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.terminate()


def _cpu(pid: int) -> float:
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


async def _generate(port: int, requests: int, connections: int, lines: int) -> None:
    """Each connection sends its next request when the one before is answered. Latencies are of whole requests."""
    left = iter(range(requests))
    latencies: list[float] = []

    async def client(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for request in left:
            body = b"".join(
                b'{"_p":"p%d","_t":%d,"_n":"Viewed Page","page":"/docs/%d","plan":"pro"}\n'
                % (number, 1_393_344_604 + request, line)
                for line in range(lines)
            )
            head = f"POST /kissmetrics/bench HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
            begin = time.perf_counter()
            writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 200"), answer
            length = int(answer.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
            await reader.readexactly(length)
            latencies.append(time.perf_counter() - begin)
        writer.close()

    begin = time.perf_counter()
    await asyncio.gather(*map(client, range(connections)))
    seconds = time.perf_counter() - begin
    centiles = statistics.quantiles(latencies, n=100)
    print(
        f"{requests:,} requests of {lines} lines over {connections} connections in {seconds:.1f} s: "
        f"{requests / seconds:,.0f} a second; p50 {centiles[49] * 1e3:.0f} ms, p95 {centiles[94] * 1e3:.0f} ms, "
        f"p99 {centiles[98] * 1e3:.0f} ms, longest {max(latencies) * 1e3:.0f} ms"
    )


if __name__ == "__main__":
    main()
