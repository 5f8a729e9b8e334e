"""The API's error replies: one class, and one function for each reply that has been recorded.

Texts and types come from deepseek-api.md ("Errors"). Texts that nobody has recorded are kept in
the style of the recorded ones; docs/standin.md lists them.
"""

import msgspec

JSON = "application/json"
# Seen on recorded 400 replies: a client that trusts the content type cannot read the reason.
OCTET_STREAM = "application/octet-stream"

CONTEXT_LIMIT = 1_048_565
INVALID_REQUEST = "invalid_request_error"


class ApiError(Exception):
    """A reply with an error body: what the caller did wrong, or what the service cannot do."""

    def __init__(self, status: int, message: str, kind: str = INVALID_REQUEST) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind

    @property
    def content_type(self) -> str:
        """The recorded content type of a reply with this status."""
        return OCTET_STREAM if self.status == 400 else JSON

    def body(self) -> bytes:
        """The JSON body; ``code`` is nearly always the same, so it classifies nothing."""
        error = {
            "message": self.message,
            "type": self.kind,
            "param": None,
            "code": self.kind if self.status == 503 else INVALID_REQUEST,
        }
        return msgspec.json.encode({"error": error})


def invalid(message: str) -> ApiError:
    """400: the request is understood and refused."""
    return ApiError(400, message)


def undeserializable(reason: str) -> ApiError:
    """400: the body does not have the shape of a request."""
    return invalid(f"Failed to deserialize the JSON body into the target type: {reason}")


def unknown_model(model: str, supported: tuple[str, ...]) -> ApiError:
    """400: neither a served model nor an alias."""
    names = ", ".join(supported)
    return invalid(f"The supported API model names are {names}, but you passed {model}.")


def context_exceeded(prompt: int, completion: int) -> ApiError:
    """400: prompt and completion do not fit the context window together."""
    return invalid(
        f"This model's maximum context length is {CONTEXT_LIMIT} tokens. However, you requested "
        f"{prompt + completion} tokens ({prompt} in the messages, {completion} in the "
        "completion). Please reduce the length of the messages or completion."
    )


def bad_key(key: str) -> ApiError:
    """401: the key is unknown; only its last characters are repeated."""
    return ApiError(
        401,
        f"Authentication Fails, Your api key: ****{key[-4:]} is invalid",
        "authentication_error",
    )


def bad_authorization() -> ApiError:
    """401: no key, or not as a bearer token."""
    return ApiError(
        401,
        "Authentication Fails (auth header format should be Bearer sk-...)",
        "authentication_error",
    )


def insufficient_balance() -> ApiError:
    """402: the account has no money left."""
    return ApiError(402, "Insufficient Balance", "unknown_error")


def too_many(current: int, limit: int) -> ApiError:
    """429: more requests in flight than the account may have."""
    return ApiError(
        429,
        f"Too many requests. Your current concurrency is {current}, which exceeds your "
        f"concurrency limit of {limit} based on your remaining balance. Please top up your "
        "balance to restore your concurrency.",
        "rate_limit_error",
    )


def too_busy() -> ApiError:
    """503: the service has no capacity."""
    return ApiError(
        503,
        "Service is too busy. We advise users to temporarily switch to alternative LLM API "
        "service providers.",
        "service_unavailable_error",
    )


def not_found(path: str) -> ApiError:
    """404: the stand-in does not know the path."""
    return ApiError(404, f"Not Found: {path}")


def not_allowed(method: str, path: str) -> ApiError:
    """405: the path is known, but not with this method."""
    return ApiError(405, f"Method Not Allowed: {method} {path}")


def for_status(status: int, message: str | None, limit: int) -> ApiError:
    """The usual reply for a status that a scenario asked for; `message` replaces its text."""
    usual = {
        401: bad_authorization(),
        402: insufficient_balance(),
        422: ApiError(422, "Invalid parameters"),
        429: too_many(limit + 1, limit),
        500: ApiError(500, "Internal Server Error", "internal_server_error"),
        503: too_busy(),
    }.get(status) or ApiError(status, f"HTTP status {status}")
    return usual if message is None else ApiError(status, message, usual.kind)
