#!/usr/bin/env python3
"""An SMTP server (aiosmtpd) that checks every message and, on SIGTERM, prints what arrived as one JSON object.

usage: aiosmtpd_count.py PORT [EXPECTED]

EXPECTED is a file with the message that must arrive each time, octet for octet, after the Date and Message-ID fields
that the generator puts first. Every message must also be a valid one (RFC 5322) in the eyes of Python's email parser.
"""

import asyncio
import collections
import email
import email.policy
import email.utils
import json
import os
import re
import signal
import ssl
import sys

from aiosmtpd.smtp import SMTP, AuthResult

FRESH_FIELD = re.compile(rb"(?:Date|Message-ID):[^\r\n]*\r\n(?:[ \t][^\r\n]*\r\n)*", re.IGNORECASE)


class Counter:
    """Counts what arrives; `faults` has the first complaint of each kind."""

    def __init__(self, expected):
        self.expected = expected
        self.sessions = 0
        self.messages = 0
        self.recipients = 0
        self.bytes = 0
        self.sizes = collections.Counter()
        self.recipients_per_message = collections.Counter()
        self.recipient_addresses = collections.Counter()
        self.senders = collections.Counter()
        self.message_ids = set()
        self.faults = {}
        self.shown = []

    async def handle_DATA(self, server, session, envelope):
        content = envelope.content
        self.messages += 1
        self.recipients += len(envelope.rcpt_tos)
        self.bytes += len(content)
        self.sizes[len(content)] += 1
        self.recipients_per_message[len(envelope.rcpt_tos)] += 1
        self.recipient_addresses.update(envelope.rcpt_tos)
        self.senders[envelope.mail_from] += 1
        if "SHOW" in os.environ:
            self.shown.append(show(content, envelope))
        for fault in self.check(content):
            self.faults.setdefault(fault.split(":")[0], fault)
        return "250 2.0.0 counted"

    def check(self, content):
        if re.search(rb"(?<!\r)\n|\r(?!\n)|\0", content):
            yield "line ends: a bare CR, a bare LF or a NUL"
        if not content.endswith(b"\r\n"):
            yield f"last line: no CRLF at the end of {content[-20:]!r}"
        longest = max(len(line) for line in content.split(b"\r\n"))
        if longest > 998:
            yield f"line length: {longest} octets (RFC 5322 section 2.1.1 allows 998)"
        message = email.message_from_bytes(content, policy=email.policy.SMTP)
        for part in message.walk():
            if part.defects:
                yield f"defects: {part.defects!r}"
        for name in ("From", "Date", "Message-ID"):
            found = message.get_all(name, [])
            if len(found) != 1:
                yield f"{name}: {len(found)} fields instead of one"
            elif found[0].defects:
                yield f"{name} field: {found[0].defects!r}"
        if message["Date"] is not None and message["Date"].datetime is None:
            yield f"date value: {message['Date']!r}"
        message_id = str(message["Message-ID"] or "").strip()
        if not re.fullmatch(r"<[^<>@\s]+@[^<>@\s]+>", message_id):
            yield f"message-id value: {message_id!r}"
        if message_id in self.message_ids:
            yield f"message-id again: {message_id}"
        self.message_ids.add(message_id)
        if self.expected is not None:
            rest, fields = content, 0
            while (found := FRESH_FIELD.match(rest)) is not None:
                rest, fields = rest[found.end():], fields + 1
            if fields != 2:
                yield f"fresh fields: {fields} instead of Date and Message-ID at the head"
            if rest != self.expected:
                at = next((i for i, (a, b) in enumerate(zip(rest, self.expected)) if a != b), min(len(rest), len(self.expected)))
                yield f"content: differs at octet {at}: got {rest[at:at + 40]!r}, expected {self.expected[at:at + 40]!r}"

    def report(self):
        return {
            "sessions": self.sessions,
            "messages": self.messages,
            "recipients": self.recipients,
            "bytes": self.bytes,
            "sizes": {str(size): count for size, count in sorted(self.sizes.items())},
            "recipients_per_message": {str(n): count for n, count in sorted(self.recipients_per_message.items())},
            "recipient_addresses": dict(sorted(self.recipient_addresses.items())),
            "senders": dict(sorted(self.senders.items())),
            "message_ids": len(self.message_ids),
            "faults": sorted(self.faults.values()),
            "shown": self.shown,
        }


def show(content, envelope):
    """A message as Python's parser understands it."""
    message = email.message_from_bytes(content, policy=email.policy.default)
    texts = {kind: message.get_body((kind,)) for kind in ("plain", "html")}
    texts = {kind: part and part.get_content() for kind, part in texts.items()}
    to = message["To"]
    return {
        "recipients": envelope.rcpt_tos,
        "to": to.addresses[0].addr_spec if to is not None and to.addresses else None,
        "to_raw": to and str(to),
        "subject": message["Subject"] and str(message["Subject"]),
        "variables": message["X-Mailgun-Recipient-Variables"],
        "text": texts["plain"],
        "html": texts["html"],
        "body": content.partition(b"\r\n\r\n")[2].decode("utf-8", "replace").replace("\r\n", "\n"),
        "attachments": [
            [part.get_filename(), part.get_content_type(), part.get_payload(decode=True).hex()]
            for part in message.iter_attachments()
        ],
        "raw": content.decode("utf-8", "replace"),
    }


def tls_context():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(os.environ["TLS_CERT"], os.environ["TLS_KEY"])
    if "TLS_CLIENT_CA" in os.environ:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(os.environ["TLS_CLIENT_CA"])
    return context


def login_options():
    """With AUTH=user:password clients must log in by it; AUTH_EXCLUDE names mechanisms that are not offered."""
    if "AUTH" not in os.environ:
        return {}
    user, password = (part.encode() for part in os.environ["AUTH"].split(":"))

    def authenticate(server, session, envelope, mechanism, data):
        return AuthResult(success=(data.login, data.password) == (user, password), handled=False)

    exclude = os.environ.get("AUTH_EXCLUDE", "").split()
    return {"auth_required": True, "authenticator": authenticate, "auth_exclude_mechanism": exclude}


async def main():
    port = int(sys.argv[1])
    expected = open(sys.argv[2], "rb").read() if len(sys.argv) > 2 else None
    counter = Counter(expected)
    how = os.environ.get("TLS")
    tls = tls_context() if how else None

    def session():
        counter.sessions += 1
        return SMTP(
            counter,
            hostname="aiosmtpd.test",
            enable_SMTPUTF8=True,
            tls_context=tls if how == "starttls" else None,
            require_starttls=how == "starttls",
            **login_options(),
            loop=asyncio.get_running_loop(),
        )

    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    server = await loop.create_server(
        session, "127.0.0.1", port, backlog=512, ssl=tls if how == "tls" else None
    )
    print(f"listening on 127.0.0.1:{port}", flush=True)
    await ended.wait()
    server.close()
    print(json.dumps(counter.report()), flush=True)


asyncio.run(main())
