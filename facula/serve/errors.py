"""What goes wrong in serving, each with the HTTP status and the code that a client sees."""

from __future__ import annotations


class ServeError(Exception):
    """The common base. ``str(error)`` goes to the client; it tells nothing of our insides."""

    status = 500
    code = "internal"

    def body(self) -> dict[str, str]:
        """The JSON answer: the protocol's ``error``, and a ``code`` for programs."""
        return {"error": str(self), "code": self.code}


class InvalidRequest(ServeError):
    """Not JSON, or not of the protocol's form."""

    status = 400
    code = "invalid_request"


class InvalidInput(ServeError):
    """A tensor that is not what the model takes: name, datatype, shape, count or values."""

    status = 400
    code = "invalid_input"


class LimitExceeded(ServeError):
    """A batch or an element count over the server's limits."""

    status = 400
    code = "limit_exceeded"


class UnknownModel(ServeError):
    status = 404
    code = "unknown_model"


class BodyTimeout(ServeError):
    """The request's body did not arrive in time."""

    status = 408
    code = "body_timeout"


class BodyTooLarge(ServeError):
    status = 413
    code = "body_too_large"


class ModelFailed(ServeError):
    """The model raised on input that had passed the checks. The log has the traceback."""

    status = 500
    code = "model_failed"


class Overloaded(ServeError):
    """As many requests as may wait are waiting."""

    status = 503
    code = "overloaded"
