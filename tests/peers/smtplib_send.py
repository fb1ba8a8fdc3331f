#!/usr/bin/env python3
"""Sends messages with random content through Python's smtplib, keeping a copy of each.

usage: smtplib_send.py PORT COUNT SEED DIRECTORY [tls|starttls CAFILE [USER:PASSWORD [MECHANISM]]]

The content has what goes wrong most easily: lines of dots and lines that begin with dots, octets above 127, empty lines,
lines of the greatest length (998 octets, RFC 5322 section 2.1.1), and ends with and without an empty line.
"""

import pathlib
import random
import smtplib
import ssl
import sys


def line(chance):
    kind = chance.randrange(8)
    if kind == 0:
        return b"." * chance.randrange(1, 5)
    if kind == 1:
        return b"." + chance.randbytes(chance.randrange(1, 60)).replace(b"\r", b"r").replace(b"\n", b"n").replace(b"\0", b"0")
    if kind == 2:
        return b""
    if kind == 3:
        return bytes(chance.randrange(128, 256) for _ in range(chance.randrange(1, 200)))
    if kind == 4:
        return bytes(chance.randrange(33, 127) for _ in range(998))
    if kind == 5:
        return chance.choice([b"QUIT", b"MAIL FROM:<a@example.com>", b"RSET", b"DATA", b"From here", b"\t", b" "])
    return bytes(chance.randrange(32, 127) for _ in range(chance.randrange(1, 78)))


def connect(port, how=None, ca_file=None):
    options = {"local_hostname": "smtplib.test", "timeout": 60}
    context = ssl.create_default_context(cafile=ca_file) if how else None
    if how == "tls":
        return smtplib.SMTP_SSL("localhost", port, context=context, **options)
    client = smtplib.SMTP("localhost", port, **options)
    if how == "starttls":
        client.starttls(context=context)
    return client


def log_in(client, user, mechanism=None):
    client.ehlo()
    client.user, client.password = user.split(":")
    if mechanism is None:
        client.login(client.user, client.password)
    else:
        client.auth(mechanism, getattr(client, "auth_" + mechanism.lower().replace("-", "_")))


def main():
    port, count, seed = (int(argument) for argument in sys.argv[1:4])
    kept = pathlib.Path(sys.argv[4])
    chance = random.Random(seed)
    client = connect(port, *sys.argv[5:7])
    if len(sys.argv) > 7:
        log_in(client, *sys.argv[7:])
    for number in range(count):
        head = f"From: <a@example.com>\r\nTo: <b@example.com>\r\nSubject: {seed}-{number}\r\n\r\n".encode()
        content = head + b"".join(line(chance) + b"\r\n" for _ in range(chance.randrange(0, 40)))
        (kept / f"{number:05}").write_bytes(content)
        recipients = [f"r{i}@example.com" for i in range(1 + number % 3)]
        client.sendmail("a@example.com", recipients, content, mail_options=["BODY=8BITMIME"])
    client.quit()


main()
