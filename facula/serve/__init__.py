"""Serving: models over HTTP, speaking the Open Inference Protocol v2.

    from facula.serve import ModelRegistry, serve
    from facula.serve.loaders import load_model

    registry = ModelRegistry()
    registry.add(load_model("digits.facula", "digits"))
    serve(registry, port=8000)

The parts, each knowing only those before it, so that another transport (gRPC) or another way of
running a model (batching) takes the place of one file:

``datatypes`` the protocol's element types; ``limits``; ``errors``; ``model`` what can be served;
``registry`` which models there are; ``loaders`` models from files; ``protocol`` requests and
responses as bytes and arrays, without HTTP; ``execution`` which thread runs a model, and how many
requests may wait; ``http`` the routes; ``server`` sockets, signals, a clean stop.
"""

from facula.serve.errors import ServeError
from facula.serve.limits import Limits
from facula.serve.model import Model, TensorSpec
from facula.serve.registry import ModelRegistry
from facula.serve.server import serve

__all__ = ["Limits", "Model", "ModelRegistry", "ServeError", "TensorSpec", "serve"]
