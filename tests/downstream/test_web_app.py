"""The app of docs/how-to/web-app.md, asked by real requests to a real server."""

from __future__ import annotations

import http.client
import io
import os
import signal
import socket
import subprocess
import sys

import psutil
import pytest
from scripts import MARK, assert_gone, environment
from test_docs import PAGES, blocks

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
Image = pytest.importorskip("PIL.Image")

SECONDS = 60  # how long a test waits before it fails: far above what it takes

# What only tests want of an app: work that tells who does it, and ends when it is told something.
MORE = """
import os

from app import Request, app, computed


def stay(path):
    with open(path, "w") as fifo:
        fifo.write(str(os.getpid()))
    with open(path) as fifo:
        return fifo.read()


@app.post("/stay")
async def stays(request: Request, path: str):
    await request.body()
    return await computed(request, stay, path)
"""


class Server:
    """A server in a process of its own, with the requests that can be made of it."""

    def __init__(self, folder, process, port):
        self.folder = folder
        self.process = process
        self.port = port
        self.connections = []

    def ask(self, path, body=b""):
        """Send a request, and return the connection from which its answer will come."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)
        self.connections.append(connection)
        connection.request("POST", path, body)
        return connection

    def answer(self, path, body=b""):
        return answer(self.ask(path, body))

    def staying(self):
        """Send a request that does not end by itself; return its connection, worker and fifo."""
        fifo = self.folder / f"fifo{len(os.listdir(self.folder))}"
        os.mkfifo(fifo)
        connection = self.ask(f"/stay?path={fifo}")
        return connection, psutil.Process(int(fifo.read_text())), fifo

    def log(self):
        return (self.folder / "log").read_text()

    def close(self):
        for connection in self.connections:
            connection.close()
        self.process.kill()
        self.process.wait()


def answer(connection):
    response = connection.getresponse()
    return response.status, response.read()


def check_ended(*processes):
    assert psutil.wait_procs(processes, SECONDS)[1] == []


@pytest.fixture
def server(tmp_path):
    pages = [block.text for block in blocks(PAGES["docs/how-to/web-app.md"])]
    for name, text in zip(["pictures", "app", "more"], [*pages[:2], MORE], strict=True):
        (tmp_path / f"{name}.py").write_text(text)
    env = environment(PARALLELKIT_WORKERS="2", PYTHONDONTWRITEBYTECODE="1")
    # The socket listens before there is a server, so that requests may come at once.
    with socket.create_server(("127.0.0.1", 0)) as listening, open(tmp_path / "log", "w") as log:
        number = listening.fileno()
        process = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "more:app", "--fd", str(number)],
            cwd=tmp_path,
            env=env,
            pass_fds=[number],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        served = Server(tmp_path, process, listening.getsockname()[1])
    try:
        yield served
    finally:
        served.close()
        assert_gone(env[MARK])


def picture(side):
    drawn = io.BytesIO()
    Image.new("RGB", (side, side), "orange").save(drawn, "PNG")
    return drawn.getvalue()


def check_shrunk(answered, side):
    status, body = answered
    assert status == 200, body
    with Image.open(io.BytesIO(body)) as image:
        assert (image.format, image.size) == ("JPEG", (side, side))


def test_many_requests_at_once(server):
    asked = {side: server.ask(f"/shrink?side={side}", picture(400)) for side in range(10, 30)}

    for side, connection in asked.items():
        check_shrunk(answer(connection), side)


def test_a_large_picture(server):
    noise = Image.effect_noise((1500, 1500), 100)
    with io.BytesIO() as drawn:
        noise.save(drawn, "BMP")
        check_shrunk(server.answer("/shrink?side=1000", drawn.getvalue()), 1000)


def test_what_is_no_picture_is_an_error_of_its_own_request(server):
    status, body = server.answer("/shrink", b"no")

    assert (status, body) == (422, b'{"detail":"this is no picture"}')
    check_shrunk(server.answer("/shrink", picture(300)), 200)


def test_a_worker_killed_in_the_middle_fails_one_request(server):
    connection, worker, _ = server.staying()
    meanwhile = [server.ask("/shrink", picture(300)) for _ in range(3)]

    worker.kill()

    status, _ = answer(connection)
    assert status == 500
    for each in meanwhile:
        check_shrunk(answer(each), 200)
    check_shrunk(server.answer("/shrink", picture(300)), 200)
    assert "a worker was killed by SIGKILL while it ran stay(" in server.log()


def test_a_client_that_leaves_ends_its_work(server):
    connection, worker, _ = server.staying()

    connection.close()

    check_ended(worker)
    check_shrunk(server.answer("/shrink", picture(300)), 200)
    assert "Traceback" not in server.log()


def test_clients_that_leave_make_room(server):
    pair = [server.staying(), server.staying()]  # all workers there are
    waiting = server.ask("/shrink", picture(300))

    for connection, *_ in pair:
        connection.close()

    check_shrunk(answer(waiting), 200)


def test_a_stop_finishes_what_is_under_way_and_leaves_nothing(server):
    check_shrunk(server.answer("/shrink", picture(300)), 200)
    family = psutil.Process(server.process.pid).children(recursive=True)
    connection, worker, fifo = server.staying()

    server.process.send_signal(signal.SIGTERM)
    fifo.write_text("the end")

    assert answer(connection) == (200, b'"the end"')
    assert server.process.wait(SECONDS) in {0, -signal.SIGTERM}  # uvicorn 0.29 raises it again
    check_ended(*family, worker)
    assert "Application shutdown complete" in server.log()
    assert "Traceback" not in server.log()


def test_a_server_that_is_killed_takes_its_workers_along(server):
    _, worker, _ = server.staying()

    server.process.kill()

    check_ended(worker)
