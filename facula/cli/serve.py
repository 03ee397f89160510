"""Serve a model over HTTP with the Open Inference Protocol v2.

facula serve digits.facula
curl localhost:8000/v2/models/digits
"""

from __future__ import annotations

import argparse
from pathlib import Path

from facula.cli import CommandError, need_extra


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from facula.serve.limits import Limits

    default = Limits()
    parser.add_argument(
        "path", metavar="PATH", type=Path, help="an archive of facula.export, or an ONNX file"
    )
    parser.add_argument("--name", help="the model's name in addresses (default: the file's name)")
    parser.add_argument("--version", default="1", help="the model's version (default: 1)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=8000, help="port; 0 lets the system choose")
    parser.add_argument(
        "--max-body-mib",
        type=int,
        default=default.body_bytes >> 20,
        help=f"largest request body (default: {default.body_bytes >> 20})",
    )
    parser.add_argument(
        "--max-batch",
        type=int,
        default=default.batch,
        help=f"largest first dimension of an input (default: {default.batch})",
    )
    parser.add_argument(
        "--max-elements",
        type=int,
        default=default.elements,
        help=f"most elements of one input (default: {default.elements})",
    )
    parser.add_argument(
        "--workers", type=int, default=default.workers, help="threads that run the model"
    )
    parser.add_argument(
        "--grace",
        type=int,
        default=10,
        metavar="SECONDS",
        help="how long requests in flight may take to finish once told to stop (default: 10)",
    )
    parser.add_argument("--log-level", default="info", choices=("warning", "info", "debug"))


def run(args: argparse.Namespace) -> int:
    need_extra("serve", "starlette", "uvicorn")
    from facula.serve import Limits, ModelRegistry, serve
    from facula.serve.loaders import LoadError, load_model

    if not args.path.exists():
        raise CommandError(f"no such file or folder: {args.path}")
    registry = ModelRegistry()
    try:
        registry.add(load_model(args.path, args.name or args.path.stem, args.version))
        limits = Limits(
            body_bytes=args.max_body_mib << 20,
            batch=args.max_batch,
            elements=args.max_elements,
            workers=args.workers,
        )
    except (LoadError, ValueError) as error:
        raise CommandError(str(error)) from error
    try:
        return serve(
            registry,
            host=args.host,
            port=args.port,
            limits=limits,
            grace_s=args.grace,
            log_level=args.log_level,
        )
    except OSError as error:
        raise CommandError(f"cannot listen on {args.host}:{args.port}: {error}") from error
