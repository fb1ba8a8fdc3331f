"""Pinned children, and what they used."""

import itertools
import os
import pathlib
import resource
import signal
import socket
import subprocess
import time

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent.parent
GENERATOR_CORE, TARGET_CORE = 0, 1
READY_WITHIN_S = 30
RUN_WITHIN_S = 300
PORTS_FROM, PORTS = 15_000, 5_000
port_turns = itertools.count(os.getpid() * 7)


class Failed(Exception):
    """A run that cannot be used; the text says why."""


class Ended:
    """How a child ended, and what it used in its whole life."""

    def __init__(self, status, usage, wall_s):
        self.status, self.wall_s = os.waitstatus_to_exitcode(status), wall_s
        self.user_s, self.cpu_s = usage.ru_utime, usage.ru_utime + usage.ru_stime


class Process:
    """A child on one core, or on any (`core` is None). Ending it gives the CPU time of its whole life."""

    def __init__(self, arguments, core, dir, name):
        self.name = name
        self.out, self.err = dir / f"{name}.out", dir / f"{name}.err"
        pinned = [] if core is None else ["taskset", "-c", str(core)]
        with open(self.out, "wb") as out, open(self.err, "wb") as err:
            self.begin = time.monotonic()
            self.child = subprocess.Popen([*pinned, *map(str, arguments)], stdin=subprocess.DEVNULL, stdout=out, stderr=err)
        self.ended = None

    @property
    def pid(self):
        return self.child.pid

    def poll(self, options=os.WNOHANG):
        """`Ended` once it has, else None."""
        if self.ended is None:
            pid, status, usage = os.wait4(self.child.pid, options)
            if pid:
                self.ended = Ended(status, usage, time.monotonic() - self.begin)
                self.child.returncode = self.ended.status
        return self.ended

    def wait(self, within_s):
        # Blocks in wait4, for a loop of looks would round the wall time up; the alarm bounds it.
        def too_late(*_):
            raise Failed(f"{self.name} did not end within {within_s} s")

        before = signal.signal(signal.SIGALRM, too_late)
        signal.alarm(within_s)
        try:
            return self.poll(0)
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, before)

    def wait_until(self, true, what="ready", within_s=READY_WITHIN_S):
        """Waits until `true()` is; kills the child and fails when that does not come."""
        deadline = time.monotonic() + within_s
        try:
            while not true():
                if self.poll() is not None:
                    raise Failed(f"{self.name} ended before it was {what}: {self.said()}")
                if time.monotonic() > deadline:
                    raise Failed(f"{self.name} was not {what} within {within_s} s: {self.said()}")
                time.sleep(0.005)
        except Failed:
            self.kill()
            raise

    def terminate(self):
        if self.poll() is None:
            os.kill(self.child.pid, signal.SIGTERM)

    def kill(self):
        if self.poll() is None:
            os.kill(self.child.pid, signal.SIGKILL)
            self.poll(0)

    def said(self):
        text = self.err.read_text(errors="replace") + self.out.read_text(errors="replace")
        return text.strip()[-2000:] or "(nothing)"


def free_port():
    """A free port below those from which the system takes ports of outgoing connections, another one each time: connections
    of the run before are still in TIME_WAIT, and would make those of this one dearer."""
    for _ in range(PORTS):
        port = PORTS_FROM + next(port_turns) % PORTS
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
    raise Failed(f"no free port between {PORTS_FROM} and {PORTS_FROM + PORTS}")


def accepts(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def raise_descriptors():
    """Lets the children have as many descriptors as this user may give them; returns how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in (262_144, 65_536, hard):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(wanted, hard)))
            return wanted
        except (ValueError, OSError):
            continue
    return soft
