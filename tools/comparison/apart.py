"""Works that are no ratio of two runs: handshakes, idle sessions, start, user-space CPU."""

import dataclasses

import pathlib
import statistics
import time

from .pairs import said, spread, verdict
from .process import READY_WITHIN_S, Failed, free_port, raise_descriptors
from .programs import SOURCES, smtp_source, s_time, timecop, timecop_sink, timecop_sink_tls, timecop_tls
from .run import Load, run

# MAIL, RCPT, DATA and the message; the same with greeting, EHLO and QUIT.
EXCHANGES_A_MESSAGE, EXCHANGES_A_SESSION = 4, 7
HANDSHAKES = 5_000
IDLE_SESSIONS, IDLE_FEW = 20_000, 1_000
# Descriptors of a process that are no sessions.
OTHER_DESCRIPTORS = 100
STARTS = 15
ESTABLISHED = "01"


@dataclasses.dataclass(frozen=True)
class UserCpu:
    """User-space CPU of a message, what starting takes not included: the difference of a long run and a short one."""

    name: str
    about: str
    load: Load
    bar: float
    needs: tuple = ()

    def measure(self, bench, options):
        load, values = options.load_of(self.load), {"off": [], "auto": []}
        short = dataclasses.replace(load, messages=load.connections)
        for number in range(1, options.pairs + 1):
            for pipelining, of in values.items():
                start = run(bench, "short", timecop(pipelining), timecop_sink, short)
                whole = run(bench, "long", timecop(pipelining), timecop_sink, load)
                user_s = whole.generator_user_s - start.generator_user_s
                of.append(user_s / (whole.messages - start.messages) * 1e6)
                print(f"  {number:4} pipelining {pipelining:4} user {of[-1]:6.2f} µs a message, user and system {whole.generator_us:6.2f}", flush=True)
        print(f"  with pipelining {said(spread(values['auto']))}")
        result = verdict(spread(values["off"]), "user µs a message", self.bar)
        return result | {"pipelined": spread(values["auto"])}


@dataclasses.dataclass(frozen=True)
class Handshakes:
    """timecop's full handshakes (TLS 1.3, ECDSA P-256, verified) against those of openssl s_time -new.

    hammer verifies the chain once a minute, s_time each time. hammer speaks SMTP over each connection, which s_time does not:
    greeting, EHLO, a message, QUIT. Its cost by the exchange, measured over kept sessions, is taken off."""

    name: str
    about: str
    bar: float
    needs: tuple = ("openssl",)

    def measure(self, bench, options):
        once = ["--messages-per-connection", 1]
        load = Load(messages=HANDSHAKES)
        kept = run(bench, "kept", timecop_tls(), timecop_sink_tls, Load())

        def handshake_us(name, generator):
            """CPU of a connection less its exchanges."""
            whole = run(bench, name, generator, timecop_sink_tls, load)
            return whole.generator_us - kept.generator_us * EXCHANGES_A_SESSION / EXCHANGES_A_MESSAGE

        def s_time_us(**more):
            return run(bench, "s_time", s_time(**more), timecop_sink_tls, load).generator_us

        found = []
        print("  A = timecop, full, B = openssl s_time -new, R = timecop, resumed, S = openssl s_time -reuse (TLS 1.2); µs a connection")
        for number in range(1, options.pairs + 1):
            found.append({
                "A": handshake_us("full", timecop_tls(more=[*once, "--no-resumption"])),
                "B": s_time_us(),
                "R": handshake_us("resumed", timecop_tls(more=once)),
                "S": s_time_us(reuse=True),
            })
            print(f"  {number:4} " + ", ".join(f"{side} {us:7.2f}" for side, us in found[-1].items()), flush=True)
        medians = {side: statistics.median(us[side] for us in found) for side in found[0]}
        result = verdict(spread([us["A"] / us["B"] for us in found]), "A/B generator CPU", self.bar)
        return result | {"pairs": found, "medians": medians}


def resident(process):
    """Octets of memory that a process has in use (VmRSS)."""
    for line in pathlib.Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1_024
    raise Failed(f"{process.name} has no VmRSS")


def established(port):
    """Connections that a server on this port has."""
    wanted, count = f":{port:04X}", 0
    with open("/proc/net/tcp") as lines:
        for line in lines:
            _, local, _, state = line.split()[:4]
            count += state == ESTABLISHED and local.endswith(wanted)
    return count


def sessions_held(bench, sessions):
    """Resident memory of both programs while so many sessions are open and, but for a message a second, idle."""
    port = free_port()
    sources = [part for source in SOURCES for part in ("--source-address", source)]
    served = timecop_sink(bench, Load(), port).process
    try:
        idle = Load(messages=600, connections=sessions)
        hammer = timecop("off", ["--rate", 1, *sources])(bench, idle, port).process
        try:
            hammer.wait_until(lambda: established(port) >= sessions, f"connected {sessions} times", 2 * READY_WITHIN_S)
            # The last of them have yet to be greeted, and to say EHLO.
            time.sleep(1)
            return {"timecop-hammer": resident(hammer), "timecop-sink": resident(served)}
        finally:
            hammer.kill()
    finally:
        served.kill()


@dataclasses.dataclass(frozen=True)
class Idle:
    """Resident memory of the whole program with 20,000 sessions (or as many as descriptors allow), by the session.

    That is more than a session costs, for the program itself is in it; but a difference would be too little, since the tables
    of sessions are made for as many as there may be. What a session more costs, over 1,000, is shown beside it."""

    name: str
    about: str
    program: str
    bar: float
    needs: tuple = ()

    def measure(self, bench, options):
        descriptors = raise_descriptors()
        many = min(IDLE_SESSIONS, descriptors - OTHER_DESCRIPTORS)
        if many < IDLE_SESSIONS:
            print(f"  {descriptors} descriptors are all that this user may have: {many} sessions instead of {IDLE_SESSIONS}")
        values = []
        for number in range(1, min(options.pairs, 3) + 1):
            few, more = sessions_held(bench, IDLE_FEW)[self.program], sessions_held(bench, many)[self.program]
            values.append(more / many)
            one_more = (more - few) / (many - IDLE_FEW)
            print(
                f"  {number:4} {few / 1e6:.1f} MB with {IDLE_FEW:,} sessions, {more / 1e6:.1f} MB with {many:,}: {values[-1]:,.0f} octets"
                f" each with all that the program has, {one_more:,.0f} for one more",
                flush=True,
            )
        return verdict(spread(values), "octets a session", self.bar) | {"sessions": many}


@dataclasses.dataclass(frozen=True)
class FirstMessage:
    """A run of one message, start and end of the process included."""

    name: str
    about: str
    needs: tuple = ("/usr/sbin/smtp-source",)

    def measure(self, bench, options):
        one, found = Load(messages=1, connections=1), []
        for _ in range(STARTS):
            a = run(bench, "timecop", timecop("off"), timecop_sink, one)
            b = run(bench, "smtp-source", smtp_source(), timecop_sink, one)
            found.append({"A": a.wall_s * 1e3, "B": b.wall_s * 1e3})
        medians = {side: statistics.median(ms[side] for ms in found) for side in "AB"}
        print(f"  A = timecop {medians['A']:.1f} ms, B = smtp-source {medians['B']:.1f} ms, medians of {STARTS}")
        return verdict(spread([ms["A"] for ms in found]), "ms, timecop", None) | {"pairs": found, "medians": medians}



