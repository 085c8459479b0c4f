"""How late a web app's event loop is under load: pictures shrunk in it, and by `arun`.

    python -m benchmarks.web [--quick]

The app of docs/how-to/web-app.md, served by uvicorn in a process of its own, is asked over HTTP by
four clients that each send a picture as soon as they have the answer to the one before.  A task in
its loop sleeps for 2 ms again and again and notes by how much it woke too late: so late is whatever
else the loop has to do.  Rounds in which the loop shrinks the pictures itself and rounds in which
workers do are interleaved; told are the delays of all rounds of a kind together.
Needs fastapi, uvicorn and pillow; POSIX only.
"""

from __future__ import annotations

import http.client
import io
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic

from benchmarks import ROOT, machine_line, quick, table

PAGE = ROOT / "docs/how-to/web-app.md"
CLIENTS = 4
SECONDS = 3.0  # of one round: some thousand delays
ROUNDS, FEW = 5, 2
SIDE = 1200  # pixels of a picture, which takes some 20 ms to be shrunk
INLINE, BY_WORKERS = "/inline", "/shrink"

MORE = """
import asyncio

from app import Request, Response, app, shrunk

NAP = 0.002
delays = []
watching = set()


async def watch():
    loop = asyncio.get_running_loop()
    while True:
        began = loop.time()
        await asyncio.sleep(NAP)
        delays.append(loop.time() - began - NAP)


@app.post("/inline")
async def inline(request: Request, side: int = 200):
    return Response(shrunk(await request.body(), side), media_type="image/jpeg")


@app.post("/delays")
async def delayed():
    if not watching:
        watching.add(asyncio.create_task(watch()))
    found, delays[:] = delays[:], []
    return found
"""


def ask(port: int, path: str, body: bytes = b"") -> bytes:
    """Return what the server answers to a request."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("POST", path, body)
        answer = connection.getresponse()
        content = answer.read()
    finally:
        connection.close()
    if answer.status != 200:
        raise RuntimeError(f"{path}: {answer.status} {content!r}")
    return content


def load(port: int, path: str, picture: bytes, until: float) -> int:
    """Be one client until then; return how many answers there were."""
    count = 0
    while monotonic() < until:
        ask(port, path, picture)
        count += 1
    return count


def measured(port: int, path: str, picture: bytes, seconds: float) -> tuple[list[float], int]:
    """Return the loop's delays in a round, and how many pictures were shrunk."""
    ask(port, "/delays")
    until = monotonic() + seconds
    with ThreadPoolExecutor(CLIENTS) as clients:
        group = [clients.submit(load, port, path, picture, until) for _ in range(CLIENTS)]
        count = sum(client.result() for client in group)
    return json.loads(ask(port, "/delays")), count


def picture() -> bytes:
    """Return one as a PNG file."""
    file = io.BytesIO()
    from PIL import Image

    Image.effect_mandelbrot((SIDE, SIDE), (-3, -2.5, 2, 2.5), 20).save(file, "PNG")
    return file.getvalue()


def serve(folder: str, listening: socket.socket) -> subprocess.Popen[bytes]:
    """Start a server of the page's app on a socket."""
    blocks = re.findall(r"^```python[^\n]*\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    for name, text in zip(["pictures", "app", "more"], [*blocks[:2], MORE], strict=True):
        Path(folder, f"{name}.py").write_text(text)
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    number = listening.fileno()
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "uvicorn",
            "more:app",
            "--fd",
            str(number),
            "--log-level",
            "warning",
        ],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
        pass_fds=[number],
        stdin=subprocess.DEVNULL,
    )


def at(part: float, delays: list[float]) -> float:
    """Return the delay that this part of them does not exceed."""
    return sorted(delays)[min(int(part * len(delays)), len(delays) - 1)]


def main() -> None:
    """Print the table."""
    rounds = FEW if quick(__doc__) else ROUNDS
    sent = picture()
    found: dict[str, list[float]] = {INLINE: [], BY_WORKERS: []}
    done = dict.fromkeys(found, 0)
    with (
        tempfile.TemporaryDirectory() as folder,
        socket.create_server(("127.0.0.1", 0)) as listening,
    ):
        server = serve(folder, listening)
        try:
            port = listening.getsockname()[1]
            for path in found:
                ask(port, path, sent)  # by which workers are up
            for _ in range(rounds):
                for path, delays in found.items():
                    some, count = measured(port, path, sent, SECONDS)
                    delays.extend(some)
                    done[path] += count
        finally:
            server.terminate()
            server.wait()
    print(f"{machine_line()}\n\n{CLIENTS} clients, pictures of {len(sent) >> 10} KiB\n")
    rows = [
        (
            {INLINE: "in the event loop", BY_WORKERS: "by `arun`"}[path],
            *(f"{at(part, delays) * 1e3:.2f}" for part in (0.5, 0.99)),
            f"{max(delays) * 1e3:.1f}",
            f"{done[path] / rounds / SECONDS:.0f}",
        )
        for path, delays in found.items()
    ]
    heads = ["shrunk", "median, ms late", "p99, ms late", "latest, ms", "pictures a second"]
    print(table(heads, rows))
    ratio = at(0.99, found[BY_WORKERS]) / at(0.99, found[INLINE])
    print(f"\np99 by `arun` is 1/{1 / ratio:.0f} of that in the loop")


if __name__ == "__main__":
    main()
