"""Two hosts with a cable between them: network namespaces of Linux, which have their own addresses.

Making them takes root, or the right to administer the network; `why_not` says what is in the way.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from typing import Self

from scripts import MARK, assert_gone, environment, marked

CABLE = "cable"  # what each host calls its end
NEAR, FAR = "10.213.7.1", "10.213.7.2"


def ip(*words: str) -> None:
    """Run `ip`, which tells on failure what is wrong."""
    ran = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if ran.returncode:
        raise OSError(f"ip {' '.join(words)}: {ran.stderr.strip()}")


def why_not() -> str | None:
    """Return why there can be no hosts here, None if there can."""
    if sys.platform != "linux" or shutil.which("ip") is None:
        return "there is no ip command (the package iproute2)"
    name = f"pk-{os.getpid()}-try"
    try:
        ip("netns", "add", name)
        try:
            ip("-n", name, "link", "add", CABLE, "type", "veth", "peer", "name", "other")
        finally:
            ip("netns", "del", name)
    except OSError as error:
        return str(error)
    return None


@dataclass
class Hosts:
    """Two hosts, `near` at the address `NEAR` and `far` at `FAR`, and what runs on them."""

    extra: dict[str, str]
    near: str = f"pk-{os.getpid()}-near"
    far: str = f"pk-{os.getpid()}-far"
    env: dict[str, str] = field(default_factory=dict)
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __enter__(self) -> Self:
        """Make them, and lay the cable."""
        self.env = environment(**self.extra)
        try:
            for name in (self.near, self.far):
                ip("netns", "add", name)
                ip("-n", name, "link", "set", "lo", "up")
            ends = ("type", "veth", "peer", "name", CABLE, "netns", self.far)
            ip("-n", self.near, "link", "add", CABLE, *ends)
            for name, address in ((self.near, NEAR), (self.far, FAR)):
                ip("-n", name, "address", "add", f"{address}/24", "dev", CABLE)
                ip("-n", name, "link", "set", CABLE, "up")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """End all that runs on them, and take them away."""
        for process in marked(self.env[MARK]):
            process.kill()
        for process in self.started:
            process.wait()
        assert_gone(self.env[MARK])
        for name in (self.near, self.far):
            if os.path.exists(f"/run/netns/{name}"):
                ip("netns", "del", name)

    def command(self, host: str, *words: str) -> list[str]:
        """Return the command that runs another one on a host."""
        return ["ip", "netns", "exec", host, *words]

    def start(self, host: str, *words: str, folder: str) -> None:
        """Start a command on a host; what it says goes to a file in `folder`."""
        with open(os.path.join(folder, f"{len(self.started)}.log"), "wb") as log:
            self.started.append(
                subprocess.Popen(
                    self.command(host, *words), env=self.env, cwd=folder, stdout=log, stderr=log
                )
            )
