"""The protocol's routes, as a Starlette application."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from facula.serve import protocol
from facula.serve.errors import BodyTimeout, BodyTooLarge, InvalidRequest, Overloaded, ServeError
from facula.serve.execution import Execution
from facula.serve.limits import Limits
from facula.serve.registry import ModelRegistry

LOG = logging.getLogger("facula.serve")
HEADER_LENGTH = "Inference-Header-Content-Length"


def create_app(
    registry: ModelRegistry, limits: Limits | None = None, version: str = ""
) -> Starlette:
    """The application; ``version`` is the server's own, told at ``/v2``."""
    handlers = _Handlers(registry, limits or Limits(), version)

    @asynccontextmanager
    async def lifespan(app):
        yield
        handlers.execution.close()
        for model in registry.models():
            model.close()

    routes = [
        Route("/v2", handlers.server),
        Route("/v2/health/live", handlers.live),
        Route("/v2/health/ready", handlers.ready),
    ]
    for path in ("/v2/models/{name}", "/v2/models/{name}/versions/{version}"):
        routes += [
            Route(path, handlers.model),
            Route(path + "/ready", handlers.model_ready),
            Route(path + "/infer", handlers.infer, methods=["POST"]),
        ]
    return Starlette(
        routes=routes,
        lifespan=lifespan,
        exception_handlers={
            ServeError: _serve_error,
            HTTPException: _http_error,
            Exception: _bug,
        },
    )


class _Handlers:
    def __init__(self, registry: ModelRegistry, limits: Limits, version: str):
        self.registry, self.limits, self.version = registry, limits, version
        self.execution = Execution(limits)

    async def server(self, request: Request) -> Response:
        return JSONResponse(
            {"name": "facula", "version": self.version, "extensions": protocol.EXTENSIONS}
        )

    async def live(self, request: Request) -> Response:
        return JSONResponse({"live": True})

    async def ready(self, request: Request) -> Response:
        ready = bool(self.registry.models())
        return JSONResponse({"ready": ready}, 200 if ready else 503)

    async def model(self, request: Request) -> Response:
        model = self._find(request)
        return JSONResponse(protocol.model_metadata(model, self.registry.versions(model.name)))

    async def model_ready(self, request: Request) -> Response:
        return JSONResponse({"name": self._find(request).name, "ready": True})

    async def infer(self, request: Request) -> Response:
        model = self._find(request)
        header_length = _header_length(request)
        body = await self._body(request)

        def work():
            asked = protocol.parse_request(body, model, self.limits, header_length)
            outputs = self.execution.infer(model, asked.inputs)
            return protocol.build_response(model, asked, outputs)

        content, json_length = await self.execution.run(work)
        if json_length is None:
            return Response(content, media_type="application/json")
        return Response(
            content,
            media_type="application/octet-stream",
            headers={HEADER_LENGTH: str(json_length)},
        )

    def _find(self, request: Request):
        return self.registry.get(request.path_params["name"], request.path_params.get("version"))

    async def _body(self, request: Request) -> bytes:
        """The whole body, refused as soon as it is known to be too large."""
        limit = self.limits.body_bytes
        announced = request.headers.get("content-length", "")
        if announced.isdecimal() and int(announced) > limit:
            raise BodyTooLarge(f"a body of {announced} bytes; at most {limit} are taken")
        body = bytearray()
        try:
            async with asyncio.timeout(self.limits.body_seconds):
                async for chunk in request.stream():
                    body += chunk
                    if len(body) > limit:
                        raise BodyTooLarge(f"a body of more than {limit} bytes")
        except TimeoutError as error:
            raise BodyTimeout(
                f"the body took more than {self.limits.body_seconds:g} s to arrive"
            ) from error
        return bytes(body)


def _header_length(request: Request) -> int | None:
    text = request.headers.get(HEADER_LENGTH)
    if text is None:
        return None
    if not text.isdecimal():
        raise InvalidRequest(f"{HEADER_LENGTH}: expected a number of bytes, got {text!r}")
    return int(text)


async def _serve_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ServeError)
    headers = {}
    if isinstance(error, Overloaded):
        headers["Retry-After"] = "1"
    if isinstance(error, (BodyTooLarge, BodyTimeout)):
        # The rest of the body was not read: the connection cannot carry another request.
        headers["Connection"] = "close"
    return JSONResponse(error.body(), error.status, headers)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "http")
    message = f"{request.method} {request.url.path}: {error.detail}"
    return JSONResponse({"error": message, "code": code}, error.status_code, error.headers)


async def _bug(request: Request, error: Exception) -> Response:
    LOG.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return JSONResponse(ServeError("internal error").body(), 500)
