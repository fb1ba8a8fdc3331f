"""Takes messages as Mailgun's API does, both its endpoints, and hands each to a server on loopback by SMTP.

Usage: mailgun_relay.py PORT_OF_THE_SERVER. Says on which port it listens.
"""

import re
import smtplib
import sys
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate, make_msgid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

MX = int(sys.argv[1])


def parts(content_type, body):
    """The parts of a multipart form, by name."""
    boundary = content_type.split("boundary=")[1].strip('"').encode()
    found = {}
    for part in body.split(b"--" + boundary)[1:-1]:
        head, _, content = part.partition(b"\r\n\r\n")
        found[re.search(rb'name="([^"]+)"', head)[1].decode()] = content.removesuffix(b"\r\n")
    return found


def composed(fields):
    """The message that a form asks for."""
    message = EmailMessage()
    message["From"], message["To"] = fields["from"][0], fields["to"][0]
    message["Subject"] = fields["subject"][0]
    for name, values in fields.items():
        if name.startswith("h:"):
            message[name[2:]] = values[0]
    # What the form does not say a provider adds.
    for name, value in (("Date", formatdate()), ("Message-ID", make_msgid())):
        if name not in message:
            message[name] = value
    message.set_content(fields["text"][0])
    return message.as_bytes(policy=SMTP)


class Api(BaseHTTPRequestHandler):
    """POST /v3/DOMAIN/messages and /v3/DOMAIN/messages.mime."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path.endswith("/messages.mime"):
            form = parts(self.headers["Content-Type"], body)
            to, message = form["to"].decode().strip(), form["message"]
        else:
            fields = parse_qs(body.decode(), strict_parsing=True)
            to, message = fields["to"][0], composed(fields)
        with smtplib.SMTP("127.0.0.1", MX) as mx:
            mx.sendmail("bounce@example.com", [to], message)
        answer = b'{"id":"<1@example.com>","message":"Queued. Thank you."}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
print("listening on", server.server_address[1], flush=True)
server.serve_forever()
