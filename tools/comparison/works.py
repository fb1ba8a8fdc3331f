"""The table of everything that is compared, with its bars. A name is SUBJECT/WORK."""

from . import apart
from .pairs import Pairs, Side
from .programs import (
    floor, h2load, nginx, oha, smtp_sink, smtp_source, timecop, timecop_churn, timecop_http, timecop_http_sink, timecop_sink,
    timecop_sink_tls, timecop_tls, wrk,
)
from .run import Load

SOURCE, SINK, WRK = ("/usr/sbin/smtp-source",), ("/usr/sbin/smtp-sink",), ("wrk",)
# By how many messages a run is long enough for starting to be a small part of it, and short enough for all of them.
KEPT, ONE, MANY = Load(), Load(messages=20_000, connections=1), Load(connections=10_000)
LARGE, HUGE = Load(messages=20_000, size=100_000), Load(messages=2_000, size=1_000_000)
# Each leaves a port in TIME_WAIT, of which smtp-source's one address has 28,000.
CHURN = Load(messages=20_000)
REQUESTS = Load(messages=300_000)


def generator(name, about, load, **more):
    """timecop hammer against smtp-source -d, sessions kept, both without pipelining into the same timecop sink."""
    a, b = Side("timecop", timecop("off"), timecop_sink), Side("smtp-source -d", smtp_source(), timecop_sink)
    pipelined = Side("timecop, pipelining, which smtp-source has not", timecop("auto"), timecop_sink)
    return Pairs(f"generator/{name}", about, a, b, (pipelined,), load=load, needs=SOURCE, **more)


def sink(name, about, load, pipelining="off", driver=timecop, **more):
    """timecop sink against smtp-sink, both driven by the same timecop hammer."""
    a, b = Side("timecop sink", driver(pipelining), timecop_sink), Side("smtp-sink", driver(pipelining), smtp_sink)
    return Pairs(f"sink/{name}", about, a, b, figure="target_us", load=load, needs=SINK, **more)


def http(name, about, peer, target, needs, load=REQUESTS, **more):
    a, b = Side("timecop", timecop_http, target), Side(name.split("-")[1], peer, target)
    return Pairs(f"http/{name}", about, a, b, load=load, needs=needs, **more)


WORKS = [
    generator("kept", "sessions kept, 1 kB, 100 connections", KEPT, bar=0.58, generator_bound=True),
    generator("1-connection", "one connection: neither side is busy", ONE, waiting=True),
    generator("10000-connections", "as kept, over 10,000 connections", MANY),
    generator("100kB", "messages of 100 kB", LARGE, bar=0.80),
    generator("1MB", "messages of 1 MB: octets a second", HUGE, figure="bytes_per_s", bar=3.0, at_least=True),
    Pairs(
        "generator/churn",
        "a connection a message, timecop's from 16 addresses, against smtp-source without -d",
        Side("timecop", timecop_churn("off"), timecop_sink),
        Side("smtp-source", smtp_source(kept=False), timecop_sink),
        (Side("timecop, pipelining", timecop_churn("auto"), timecop_sink),),
        bar=0.58,
        load=CHURN,
    ),
    apart.UserCpu("generator/user-cpu", "user-space CPU of a message, sessions kept, all measurement on", KEPT, bar=1.0),
    sink("kept", "sessions kept, 1 kB, 100 connections", KEPT, bar=0.55),
    sink("pipelined", "the same with PIPELINING", KEPT, "auto", bar=0.53),
    sink("1-connection", "one connection: neither side is busy", ONE, waiting=True),
    sink("100kB", "messages of 100 kB", LARGE),
    sink("1MB", "messages of 1 MB", HUGE),
    sink("churn", "a connection a message, from 16 addresses", CHURN, driver=timecop_churn),
    Pairs(
        "sink/10000-connections",
        "10,000 sessions against the same sink's 100; a session that is refused fails the run",
        Side("10,000 sessions", timecop("off"), timecop_sink),
        Side("100 sessions", timecop("off"), timecop_sink, Load()),
        figure="target_us",
        bar=1.9,
        load=MANY,
        needs=(),
    ),
    sink("10000-connections-smtp-sink", "10,000 sessions: smtp-sink takes under 1,000 a second", Load(10_000, 10_000), pairs_most=1),
    http("stub-wrk", "1 kB POST into timecop sink --http", wrk, timecop_http_sink, WRK, bar=0.76, generator_bound=True),
    http("nginx-wrk", "1 kB POST into nginx", wrk, nginx, (*WRK, "/usr/sbin/nginx"), bar=0.82),
    http("stub-h2load", "1 kB POST into timecop sink --http", h2load, timecop_http_sink, ("h2load",)),
    http("stub-oha", "1 kB POST into timecop sink --http", oha, timecop_http_sink, ("oha",), load=Load()),
    Pairs(
        "tls/kept",
        "1 kB over TLS 1.3 against the same in the clear: what do records cost?",
        Side("timecop over TLS", timecop_tls("off"), timecop_sink_tls),
        Side("timecop in the clear", timecop("off"), timecop_sink),
        bar=1.15,
        needs=("openssl",),
    ),
    apart.Handshakes("tls/handshake", "connections with a full handshake against openssl s_time -new", bar=0.40),
    apart.Idle("idle/generator", "resident memory of an idle session of timecop hammer", "timecop-hammer", bar=2_000),
    apart.Idle("idle/sink", "resident memory of an idle session of timecop sink", "timecop-sink", bar=2_000),
    apart.FirstMessage("start/first-message", "from the start of the process to the end of a run of one message"),
    Pairs(
        "floor/peer",
        "benches/floor.rs against smtp-source -d: is it a floor?",
        Side("floor", floor("off"), timecop_sink),
        Side("smtp-source -d", smtp_source(), timecop_sink),
        bar=0.55,
        generator_bound=True,
        needs=(*SOURCE, "cargo"),
    ),
    Pairs(
        "floor/off",
        "timecop hammer against the floor, without pipelining",
        Side("timecop", timecop("off"), timecop_sink),
        Side("floor", floor("off"), timecop_sink),
        bar=1.10,
        generator_bound=True,
        needs=("cargo",),
    ),
    Pairs(
        "floor/pipelined",
        "timecop hammer against the floor, with PIPELINING",
        Side("timecop", timecop("auto"), timecop_sink),
        Side("floor", floor("auto"), timecop_sink),
        bar=1.15,
        generator_bound=True,
        load=Load(messages=200_000),
        needs=("cargo",),
    ),
]


def choose(names):
    """The works of these names, each a work or a subject (all of its works); all works where there is no name."""
    if not names or "all" in names:
        return WORKS
    unknown = [name for name in names if not any(name in (work.name, work.name.split("/")[0]) for work in WORKS)]
    if unknown:
        raise KeyError(unknown[0])
    return [work for work in WORKS if work.name in names or work.name.split("/")[0] in names]
