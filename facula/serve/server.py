"""Sockets, signals and a clean stop."""

from __future__ import annotations

import logging
import signal
import socket
from contextlib import contextmanager

from facula.serve.limits import Limits
from facula.serve.registry import ModelRegistry


def serve(
    registry: ModelRegistry,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    limits: Limits | None = None,
    grace_s: int = 10,
    log_level: str = "info",
) -> int:
    """Serve until SIGINT or SIGTERM; then finish the requests in flight and return 0.

    Once the server answers, one line on stdout says where. Port 0 lets the system choose one.

    Args:
        grace_s: seconds that requests in flight may take once the signal has come.

    Raises:
        OSError: the address cannot be had.
    """
    # Imported here: `from facula.serve import Model` must work where the extra is not installed.
    import uvicorn

    import facula
    from facula.serve.http import create_app

    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s", level=log_level.upper())
    config = uvicorn.Config(
        create_app(registry, limits, facula.__version__),
        log_level=log_level,
        timeout_graceful_shutdown=grace_s,
        server_header=False,
        lifespan="on",
    )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family)
    # asyncio turns Nagle's algorithm off only where the socket says that it is TCP; with it on,
    # an answer written in two parts waits 40 ms for the client's acknowledgement.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, listener.detach())
    address = f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"

    class Server(uvicorn.Server):
        async def startup(self, sockets=None):
            await super().startup(sockets)
            if self.started:
                names = ", ".join(sorted({model.name for model in registry.models()}))
                print(f"serving {names} at {address}", flush=True)

        @contextmanager
        def capture_signals(self):
            # Uvicorn raises the signal once more after its clean stop, which would make the
            # process die of it: a stop that was asked for is no failure, so here it is not.
            wanted = (signal.SIGINT, signal.SIGTERM)
            before = {s: signal.signal(s, self.handle_exit) for s in wanted}
            try:
                yield
            finally:
                for s, handler in before.items():
                    signal.signal(s, handler)

    server = Server(config)
    server.run(sockets=[listener])
    return 0 if server.started else 1
