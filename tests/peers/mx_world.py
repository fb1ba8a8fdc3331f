#!/usr/bin/env python3
"""A network of its own, with a name server at port 53 and room for mail exchangers at port 25; runs what it reads there.

usage: unshare --net --mount mx_world.py COMMANDS

Each line of the file COMMANDS is a command as a JSON list of words. One that begins with "&" is started and waited for until it
says that it listens; it ends with this. One that begins with "~" and a pattern is run again and again until its output has
that. Every other one is run to its end. Of each but the first kind the end is a line of JSON: exit, stdout, stderr. "!" has the
last one that was started end by SIGTERM, and tells its exit and output.

Names under silent.example are never answered.
"""

import fcntl
import json
import re
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

A, MX, NXDOMAIN, SERVFAIL = 1, 15, 3, 2
MAIL_EXCHANGERS = {
    "example.com": [(20, "b.example.com"), (10, "a.example.com")],
    "far.example": [(10, "a.example.com"), (20, "far.example.net")],
    "null.example": [(0, "")],
}
ADDRESSES = {
    "a.example.com": "127.0.0.5",
    "b.example.com": "127.0.0.6",
    "far.example.net": "192.0.2.1",
    "bare.example": "127.0.0.5",
}


def encoded(name):
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".") if label) + b"\0"


def answer(query):
    at, labels = 12, []
    while query[at]:
        labels.append(query[at + 1 : at + 1 + query[at]].decode().lower())
        at += 1 + query[at]
    kind, name = struct.unpack_from("!H", query, at + 1)[0], ".".join(labels)
    records = []
    if kind == MX:
        records = [struct.pack("!H", preference) + encoded(host) for preference, host in MAIL_EXCHANGERS.get(name, [])]
    elif kind == A and name in ADDRESSES:
        records = [socket.inet_aton(ADDRESSES[name])]
    if name.endswith("silent.example"):
        return None
    code = {"gone.example": NXDOMAIN, "broken.example": SERVFAIL}.get(name, 0)
    head = query[:2] + struct.pack("!HHHHH", 0x8180 | code, 1, len(records), 0, 0)
    body = b"".join(b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, 60, len(data)) + data for data in records)
    return head + query[12 : at + 5] + body


def serve(server):
    while True:
        query, peer = server.recvfrom(4096)
        said = answer(query)
        if said:
            server.sendto(said, peer)


def run(words):
    ended = subprocess.run(words, capture_output=True, text=True, timeout=60)
    return {"exit": ended.returncode, "stdout": ended.stdout, "stderr": ended.stderr}


def until(pattern, words):
    deadline = time.monotonic() + 60
    while True:
        result = run(words)
        if re.search(pattern, result["stdout"]):
            return result
        assert time.monotonic() < deadline, (pattern, result)
        time.sleep(0.05)


def raise_loopback():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        # SIOCSIFFLAGS with IFF_UP.
        fcntl.ioctl(control, 0x8914, struct.pack("16sH14x", b"lo", 1))


def main():
    raise_loopback()
    with tempfile.NamedTemporaryFile("w") as configuration:
        configuration.write("nameserver 127.0.0.1\n")
        configuration.flush()
        subprocess.run(["mount", "--bind", configuration.name, "/etc/resolv.conf"], check=True)
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        server.bind(("127.0.0.1", 53))
        threading.Thread(target=serve, args=(server,), daemon=True).start()
        started = []
        try:
            for line in open(sys.argv[1]):
                words = json.loads(line)
                if words[0] == "&":
                    process = subprocess.Popen(words[1:], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
                    started.append(process)
                    heard = []
                    while not any("listening on" in said for said in heard[-1:]):
                        heard.append(process.stdout.readline())
                        assert heard[-1], (words, heard)
                    continue
                if words[0] == "!":
                    process = started.pop()
                    process.terminate()
                    said, _ = process.communicate(timeout=60)
                    result = {"exit": process.returncode, "stdout": said, "stderr": ""}
                else:
                    result = until(words[1], words[2:]) if words[0] == "~" else run(words)
                print(json.dumps(result), flush=True)
        finally:
            for process in started:
                process.terminate()
                process.communicate(timeout=30)


if __name__ == "__main__":
    main()
