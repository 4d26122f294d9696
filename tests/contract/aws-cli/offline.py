"""Runs calls of the AWS CLI without a network. The CLI parses and validates a call as ever, and prints an answer that is
made up from the service's model. The calls come as to the local cloud's server.py, which has to be on the path.

Each call is appended to the file in OFFLINE_CALLS, one JSON object in a line.
"""

import datetime
import io
import json
import os
import sys
import types

import jmespath
from awscli import clidriver
from botocore.client import BaseClient

import server

# Every text in an answer is a deployment id, which commands pass on as an id, a name or an ARN.
TEXT = "test-20251027-122112Z"
# "AWS:password", which `aws ecr get-login-password` decodes.
TOKEN = "QVdTOnBhc3N3b3Jk"
# What a task of an execution was called with, when it waits for an answer.
PARAMETERS = json.dumps({"MessageAttributes": {"TaskToken": {"DataType": "String", "StringValue": "a token"}}})
# The members that commands read more of than the text.
KNOWN = {"authorizationToken": TOKEN, "parameters": PARAMETERS}
# An option that version 2 has, and that the documents say version 1 does not need.
OF_VERSION_2 = "--cli-binary-format"


def made_up(shape, text, depth=0):
    """A value of the shape with all its members, except for the tokens of further pages."""
    kind = shape.type_name
    if kind == "structure":
        members = shape.members.items() if depth < 12 else ()
        return {
            name: KNOWN.get(name) if member.type_name == "string" and name in KNOWN else made_up(member, text, depth + 1)
            for name, member in members
            if name.lower() not in ("nexttoken", "marker", "nextmarker")
        }
    if kind == "list":
        return [made_up(shape.member, text, depth + 1)]
    if kind == "map":
        return {text: made_up(shape.value, text, depth + 1)}
    if kind == "string":
        return (shape.enum or [text])[0]
    if kind == "blob":
        return b"{}"
    if kind == "timestamp":
        return datetime.datetime.now(datetime.timezone.utc)
    return {"boolean": True, "float": 1.0, "double": 1.0}.get(kind, 1)


def lacks(value):
    """Whether a query has found nothing, or has found nothing for a part of what it asks for."""
    return value in (None, "", []) or isinstance(value, list) and any(map(lacks, value))


def answer(_client, operation, _request, _context):
    """Answers a call in place of the service, and refuses a query that finds nothing in the answer."""
    arguments = sys.argv[1:]
    query = arguments[arguments.index("--query") + 1] if "--query" in arguments else "@"
    # A query selects by a text such as the name of a stack's output.
    text = query.split("=='")[1].split("'")[0] if "=='" in query else TEXT
    found = made_up(operation.output_shape, text) if operation.output_shape else {}
    if operation.has_streaming_output:
        found[operation.output_shape.serialization["payload"]] = io.BytesIO(b"{}")
    if query != "@" and lacks(jmespath.search(query, found)):
        raise ValueError(f"{operation.name} answers nothing for the query {query}")
    return types.SimpleNamespace(status_code=200), found


driver = clidriver.create_clidriver()
make_api_call = BaseClient._make_api_call


def record(client, operation, parameters):
    call = {"service": client.meta.service_model.service_name, "operation": operation, "parameters": parameters}
    ended = make_api_call(client, operation, parameters)
    with open(os.environ["OFFLINE_CALLS"], "a") as calls:
        calls.write(json.dumps(call, default=bytes.decode) + "\n")
    return ended


def main():
    arguments = sys.argv[1:]
    if OF_VERSION_2 in arguments:
        option = arguments.index(OF_VERSION_2)
        del arguments[option : option + 2]
    return driver.main(arguments)


BaseClient._make_api_call = record
BaseClient._make_request = answer
clidriver.main = main
server.serve()
