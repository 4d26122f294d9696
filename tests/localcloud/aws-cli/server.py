"""Runs calls of the AWS CLI in forks of this process, which has already loaded it. Loading takes most of the time of a
call, and a deployment makes a dozen calls.

The calls come from `aws` over the Unix socket that is the standard output of this process. The process ends when its
standard input ends, so that it never outlives the local cloud.
"""

import json
import os
import select
import signal
import socket
import sys
import traceback

# The standard output is the socket, so output goes to the standard error.
LISTENER = socket.socket(fileno=os.dup(1))
os.dup2(2, 1)

from awscli import clidriver

# Loads the modules that the AWS CLI would load later.
clidriver.create_clidriver()


def run(connection):
    """Runs the call that a connection requests in this process, which is a fork. Returns its exit status."""
    _, files, _, _ = socket.recv_fds(connection, 1, 3)
    with connection.makefile("rb") as request:
        arguments, folder, environment = json.load(request)
    for number, file in enumerate(files):
        os.dup2(file, number)
    os.chdir(folder)
    # The AWS CLI sets this variable when it is loaded.
    environment["AWS_DATA_PATH"] = os.environ["AWS_DATA_PATH"]
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["aws", *arguments]
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        status = clidriver.main() or 0
    except SystemExit as ended:
        status = ended.code or 0
    sys.stdout.flush()
    return status


def serve():
    # The kernel removes ended forks.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        ready, _, _ = select.select([LISTENER, sys.stdin], [], [])
        if sys.stdin in ready:
            # Calls that still run are killed, because their callers have ended.
            os.killpg(0, signal.SIGKILL)
        connection, _ = LISTENER.accept()
        if os.fork() == 0:
            try:
                connection.send(bytes([run(connection)]))
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(0)
        connection.close()


if __name__ == "__main__":
    serve()
