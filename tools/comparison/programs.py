"""The generators and targets. Each is a function of (bench, load, port) that starts it and gives a `Started`."""

import json
import os
import re
import shutil
import subprocess

from .process import GENERATOR_CORE, REPOSITORY, TARGET_CORE, Failed, Process, accepts
from .run import Started

# smtp-sink lets connections above its bound wait unanswered (256 unless told otherwise).
SMTP_SINK_CONNECTIONS_MAX = 16_384
SENDER, RECIPIENT, HELO = "compare@example.com", "load@example.com", "compare.example.com"
# The stub wants any key of the user api.
AUTHORIZATION = "Basic YXBpOmtleQ=="
WRK_S, S_TIME_S = 3, 3
OHA = REPOSITORY / "target/peers-oha/bin/oha"
# Where a connection a message would else wear out the ports of one source address.
SOURCES = [f"127.0.0.{last}" for last in range(2, 18)]

# Programs that are looked for, and how to get those that are missing.
INSTALL = {
    "/usr/sbin/smtp-source": "apt-get install postfix",
    "/usr/sbin/smtp-sink": "apt-get install postfix",
    "/usr/sbin/nginx": "apt-get install nginx-light",
    "wrk": "apt-get install wrk",
    "h2load": "apt-get install nghttp2-client",
    "openssl": "apt-get install openssl",
    "oha": f"cargo install --locked oha --root {OHA.parent.parent.relative_to(REPOSITORY)}",
    "cargo": "https://rustup.rs",
}


class Bench:
    """What the programs need to know of this comparison."""

    def __init__(self, binary, dir):
        self.binary, self.dir = binary, dir
        self.floor = None


def find(program):
    """The path of a program, or None."""
    return shutil.which(OHA) or shutil.which("oha") if program == "oha" else shutil.which(program)


# ------------------------------------------------------------------------------------------------------------- targets


def timecop_sink(bench, load, port, scheme="", files=()):
    report = bench.dir / "sink.json"
    report.unlink(missing_ok=True)
    arguments = ["sink", "--listen", f"{scheme}127.0.0.1:{port}", *files, "--shards", 1, "--cpus", TARGET_CORE, "--json", report]
    process = Process([bench.binary, *arguments], TARGET_CORE, bench.dir, "timecop-sink")
    process.wait_until(lambda: "listening on " in process.err.read_text())
    return Started(process, lambda: json.loads(report.read_text())["messages"])


def timecop_sink_tls(bench, load, port):
    certificate, key = certificate_of(bench)
    return timecop_sink(bench, load, port, "smtps://", ["--tls-cert", certificate, "--tls-key", key])


def certificate_of(bench):
    """A certificate for localhost that signs itself, and its key."""
    paths = bench.dir / "cert.pem", bench.dir / "key.pem"
    if not paths[0].exists():
        new = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost".split()
        new += ["-addext", "subjectAltName=DNS:localhost", "-out", paths[0], "-keyout", paths[1]]
        # Without this it would be an issuer's, which no server may show for itself.
        new += ["-addext", "basicConstraints=critical,CA:FALSE"]
        made = subprocess.run(new, capture_output=True, text=True)
        if made.returncode != 0:
            raise Failed(f"openssl made no certificate: {made.stderr}")
    return paths


def smtp_sink(bench, load, port):
    most = min(SMTP_SINK_CONNECTIONS_MAX, load.connections + 16)
    user = ["-u", "nobody"] if os.geteuid() == 0 else []
    arguments = ["/usr/sbin/smtp-sink", *user, "-m", most, f"127.0.0.1:{port}", 1024]
    process = Process(arguments, TARGET_CORE, bench.dir, "smtp-sink")
    process.wait_until(lambda: accepts(port))
    return Started(process)  # it counts only when it also prints, which would cost it time


def timecop_http_sink(bench, load, port):
    arguments = ["sink", "--http", f"127.0.0.1:{port}", "--shards", 1, "--cpus", TARGET_CORE, "--json", bench.dir / "sink.json"]
    process = Process([bench.binary, *arguments], TARGET_CORE, bench.dir, "timecop-sink")
    process.wait_until(lambda: "listening on " in process.said())
    return Started(process)


def nginx(bench, load, port):
    dir = bench.dir / "nginx"
    dir.mkdir(exist_ok=True)
    answer = '{"id":"<1@example.com>","message":"Queued. Thank you."}'
    paths = " ".join(f"{kind}_temp_path {dir}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    (dir / "nginx.conf").write_text(
        f"daemon off; master_process off; pid {dir}/pid; error_log {dir}/error.log;\n"
        "events { worker_connections 15000; }\n"
        f"http {{ access_log off; {paths} keepalive_requests 1000000000; default_type application/json;\n"
        f"server {{ listen 127.0.0.1:{port}; location / {{ return 200 '{answer}'; }} }} }}\n"
    )
    arguments = ["/usr/sbin/nginx", "-e", dir / "error.log", "-p", dir, "-c", dir / "nginx.conf"]
    process = Process(arguments, TARGET_CORE, bench.dir, "nginx")
    process.wait_until(lambda: accepts(port))
    return Started(process)


# ---------------------------------------------------------------------------------------------------------- generators


def hammer(bench, load, target, more):
    report = bench.dir / "hammer.json"
    report.unlink(missing_ok=True)
    arguments = ["hammer", target, "-m", load.messages, "-c", load.connections, "-s", load.size]
    arguments += ["--from", SENDER, "--to", RECIPIENT, "--cpus", GENERATOR_CORE, "--shards", 1, "--quiet", "--json", report]
    process = Process([bench.binary, *arguments, *more], GENERATOR_CORE, bench.dir, "timecop-hammer")
    return Started(process, lambda: json.loads(report.read_text())["messages"]["accepted"])


def timecop(pipelining="off", more=()):
    def start(bench, load, port):
        return hammer(bench, load, f"smtp://127.0.0.1:{port}", ["--pipelining", pipelining, *more])

    return start


def timecop_tls(pipelining="off", more=()):
    def start(bench, load, port):
        trusted = ["--ca-file", certificate_of(bench)[0]]
        return hammer(bench, load, f"smtps://localhost:{port}", ["--pipelining", pipelining, *trusted, *more])

    return start


def timecop_churn(pipelining="off"):
    """A connection a message, from 16 addresses."""
    sources = [part for source in SOURCES for part in ("--source-address", source)]
    return timecop(pipelining, ["--messages-per-connection", 1, *sources])


def timecop_http(bench, load, port):
    return hammer(bench, load, f"http://127.0.0.1:{port}/v3/example.com", ["--header", f"Authorization: {AUTHORIZATION}"])


def smtp_source(kept=True):
    def start(bench, load, port):
        # smtp-source counts no header in its length: what is left of the message when its header is taken off.
        header = f"From: <{SENDER}>\r\nTo: <{RECIPIENT}>\r\nDate: Thu, 01 Jan 2026 00:00:00 +0000 (UTC)\r\n"
        header += f"Message-Id: <1a2b.0123.0123@{HELO}>\r\n\r\n\r\n"
        arguments = ["-4", *(["-d"] if kept else []), "-s", load.connections, "-m", load.messages]
        arguments += ["-l", max(2, load.size - len(header)), "-M", HELO, "-f", SENDER, "-t", RECIPIENT, f"127.0.0.1:{port}"]
        process = Process(["/usr/sbin/smtp-source", *arguments], GENERATOR_CORE, bench.dir, "smtp-source")
        return Started(process)  # it ends with an error at the first message that is not accepted

    return start


def floor(pipelining="off"):
    def start(bench, load, port):
        if bench.floor is None:
            bench.floor = build_floor()
        arguments = [f"127.0.0.1:{port}", load.messages, load.connections, load.size, "on" if pipelining == "auto" else "off"]
        process = Process([bench.floor, *arguments], GENERATOR_CORE, bench.dir, "floor")
        return Started(process, lambda: int(process.out.read_text()))

    return start


def build_floor():
    """benches/floor.rs, built as the benchmarks are."""
    command = ["cargo", "bench", "--no-run", "--message-format", "json", "--bench", "floor"]
    built = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    if built.returncode != 0:
        raise Failed(f"benches/floor.rs does not build: {built.stderr[-2000:]}")
    artifacts = (json.loads(line) for line in built.stdout.splitlines() if line.startswith("{"))
    return next(a["executable"] for a in artifacts if a.get("executable") and a["target"]["name"] == "floor")


def form(load):
    """The octets of a request of about this size, which are the same for all."""
    fields = f"from={SENDER}&to={RECIPIENT}&subject=load&text=".replace("@", "%40")
    return fields + "x" * max(1, load.size - len(fields))


def url(port):
    return f"http://127.0.0.1:{port}/v3/example.com/messages"


def counted(process, pattern):
    """The number that a program has printed, or 0."""
    found = re.search(pattern, process.said())
    return int(found[1]) if found else 0


def wrk(bench, load, port):
    """For some seconds; its messages are the requests that were answered."""
    script = bench.dir / "wrk.lua"
    script.write_text(
        'wrk.method = "POST"\nwrk.headers["Content-Type"] = "application/x-www-form-urlencoded"\n'
        f'wrk.headers["Authorization"] = "{AUTHORIZATION}"\nwrk.body = "{form(load)}"\n'
    )
    arguments = ["wrk", "-t", 1, "-c", load.connections, "-d", WRK_S, "-s", script, url(port)]
    process = Process(arguments, GENERATOR_CORE, bench.dir, "wrk")

    def count():
        if "Non-2xx" in process.said():
            raise Failed(f"wrk had bad answers: {process.said()}")
        return counted(process, r"(\d+) requests in")

    return Started(process, count, timed=True)


def h2load(bench, load, port):
    data = bench.dir / "form"
    data.write_text(form(load))
    arguments = ["h2load", "--h1", "-t", 1, "-n", load.messages, "-c", load.connections, "--data", data]
    arguments += ["-H", "Content-Type: application/x-www-form-urlencoded", "-H", f"Authorization: {AUTHORIZATION}", url(port)]
    process = Process(arguments, GENERATOR_CORE, bench.dir, "h2load")
    return Started(process, lambda: counted(process, r"status codes: (\d+) 2xx"))


def oha(bench, load, port):
    arguments = [find("oha"), "--no-tui", "--output-format", "json", "-n", load.messages, "-c", load.connections, "-m", "POST"]
    arguments += ["-T", "application/x-www-form-urlencoded", "-H", f"Authorization: {AUTHORIZATION}", "-d", form(load), url(port)]
    process = Process(arguments, GENERATOR_CORE, bench.dir, "oha")
    return Started(process, lambda: counted(process, r'"200": (\d+)'))


def s_time(reuse=False):
    """openssl s_time for some seconds; its messages are its connections.

    Full handshakes are those of TLS 1.3. Resumed ones can only be those of TLS 1.2, since s_time never reads the ticket that
    TLS 1.3 sends behind a handshake."""

    def start(bench, load, port):
        arguments = ["-connect", f"localhost:{port}", "-time", S_TIME_S, "-CAfile", certificate_of(bench)[0], "-verify", 1]
        if reuse:
            arguments += ["-reuse", "-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-GCM-SHA384"]
        else:
            arguments += ["-new", "-tls1_3", "-ciphersuites", "TLS_AES_256_GCM_SHA384"]
        process = Process(["openssl", "s_time", *arguments], GENERATOR_CORE, bench.dir, "s_time")
        return Started(process, lambda: counted(process, r"(\d+) connections in"), timed=True)

    return start
