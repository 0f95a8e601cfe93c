"""The application served by uvicorn, from the socket to the end of the process."""

import logging as standard_logging
import os
import signal
import socket
import sys
from types import FrameType

import uvicorn
from absl import logging
from fastapi import FastAPI

STOP_SECONDS = 3  # for requests that are being answered, and for the worker, when the server is told to stop


def bind(host: str, port: int) -> socket.socket:
    """A listening socket. ValueError: there is no such address, or the port is taken."""
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
    """The address of a listening socket, as a browser takes it."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def run(app: FastAPI, listener: socket.socket) -> None:
    """Serves until SIGINT or SIGTERM, then ends the process with status 0, within seconds."""
    StudioServer(app).run([listener])
    app.state.studio.worker.join(STOP_SECONDS)  # leaves a job at its next step, and finishes what it is writing
    # Not by sys.exit: it waits for all threads, and XLA cannot be interrupted while it compiles.
    standard_logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


class StudioServer(uvicorn.Server):
    """uvicorn's server, which says where it is, and stops without waiting for event streams."""

    def __init__(self, app: FastAPI):
        self.studio = app.state.studio
        super().__init__(
            uvicorn.Config(
                app,
                log_level="warning",
                access_log=False,  # it would keep the token of a page's first address
                proxy_headers=False,  # a client could choose its address by them
                server_header=False,
                timeout_graceful_shutdown=STOP_SECONDS,
            )
        )

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        print(f"The studio is at {url_of(sockets[0])} (Ctrl-C stops it); the model is being loaded", flush=True)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        logging.info("The studio stops")
        self.studio.close()  # event streams end, so that they are not waited for
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # uvicorn's own would raise the signal once more when all is done.
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True
