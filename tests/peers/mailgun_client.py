"""Mailgun's own Python client against the stub: mailgun_client.py URL KEY RESULTS [OPENAPI]

Writes one JSON object a call to RESULTS: its status and its content. With Mailgun's OpenAPI file, requests and answers
are validated against its schemas.
"""

import json
import pathlib
import sys

import jsonschema_rs
from mailgun.client import Client

url, key, results, *openapi = sys.argv[1:]
SPEC = json.loads(pathlib.Path(openapi[0]).read_text()) if openapi else None
DOMAIN = "example.com"
RIGHT = {
    "from": "Me <me@example.com>",
    "to": ["a@example.net", "Bob <b@example.net>"],
    "cc": ["c@example.net"],
    "subject": "Grüße %recipient.first%",
    "text": "ein Text & mehr = 100 %",
    "html": "<p>ein Text</p>",
    "o:testmode": "yes",
    "o:tag": ["one", "two"],
    "h:X-Header": "value",
    "v:data": '{"a": 1}',
    "recipient-variables": '{"a@example.net": {"first": "Ann"}, "b@example.net": {"first": "Bob"}}',
}
MIME = b"From: me@example.com\r\nTo: a@example.net\r\nSubject: x\r\n\r\n--not a boundary\r\n\r\n"


def valid(schema, value):
    if SPEC:
        jsonschema_rs.validate({**schema, "components": SPEC["components"]}, value)


def answer(path, response):
    content = response.json()
    declared = SPEC and SPEC["paths"][path]["post"]["responses"].get(str(response.status_code))
    if declared:
        valid(declared["content"]["application/json"]["schema"], content)
    return {"status": response.status_code, "content": content, "validated": bool(declared)}


def send(client, data, files=None):
    path = "/v3/{domain_name}/messages"
    if SPEC and data is RIGHT:
        valid(SPEC["paths"][path]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"], data)
    return answer(path, client.messages.create(data=data, files=files, domain=DOMAIN))


def send_mime(client, data, files):
    return answer("/v3/{domain_name}/messages.mime", client.mimemessage.create(data=data, files=files, domain=DOMAIN))


with Client(auth=("api", key), api_url=url) as client, Client(auth=("api", "wrong"), api_url=url) as stranger:
    attachments = [("attachment", ("a.bin", bytes(range(256)) * 2000)), ("inline", ("b.png", b"\x89PNG\r\n--\r\n"))]
    calls = [
        send(client, RIGHT),
        send(client, RIGHT, attachments),
        send_mime(client, {"to": "a@example.net"}, {"message": ("message.mime", MIME)}),
        send(client, {name: value for name, value in RIGHT.items() if name != "from"}),
        send(client, {**RIGHT, "to": "nobody"}),
        send(client, {**RIGHT, "recipient-variables": "{"}),
        send_mime(client, {"to": "a@example.net", "message": "no file"}, None),
        send(stranger, RIGHT),
    ]
pathlib.Path(results).write_text("".join(json.dumps(call) + "\n" for call in calls))
