"""Serve the application with uvicorn, from opening the socket to exiting the process."""

import logging as standard_logging
import os
import signal
import socket
import sys
from types import FrameType

import uvicorn
from absl import logging
from fastapi import FastAPI

STOP_SECONDS = 3  # grace period for open requests, and then for the worker, when the server stops


def bind(host: str, port: int) -> socket.socket:
    """Open a listening socket.

    Raises:
      ValueError: the host is not an address of this machine, or the port is not available.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family, backlog=128)
    except socket.gaierror as error:
        raise ValueError(f"--host {host} is no address of this machine ({error.strerror})") from error
    except OSError as error:
        raise ValueError(
            f"--port {port} of --host {host} cannot be listened at ({os.strerror(error.errno)}): choose another"
        ) from error


def url_of(listener: socket.socket) -> str:
    """Return the URL of a listening socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def run(app: FastAPI, listener: socket.socket) -> None:
    """Serve until SIGINT or SIGTERM, then exit the process with status 0 within seconds."""
    StudioServer(app).run([listener])
    app.state.studio.worker.join(STOP_SECONDS)  # it stops at the job's next step, and finishes a file being written
    # Not sys.exit, which waits for all threads: XLA cannot be interrupted while it compiles.
    standard_logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


class StudioServer(uvicorn.Server):
    """uvicorn's server, which also prints its URL and does not wait for event streams when it stops."""

    def __init__(self, app: FastAPI):
        self.studio = app.state.studio
        super().__init__(
            uvicorn.Config(
                app,
                log_level="warning",
                access_log=False,  # it would record the token in the page's first URL
                proxy_headers=False,  # with them a client could forge its address
                server_header=False,
                timeout_graceful_shutdown=STOP_SECONDS,
            )
        )

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        print(f"The studio is at {url_of(sockets[0])} (Ctrl-C stops it); the model is being loaded", flush=True)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        logging.info("The studio stops")
        self.studio.close()  # ends the event streams, which uvicorn would wait for
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # Unlike uvicorn's own handler, this does not raise the signal again after shutdown.
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True
