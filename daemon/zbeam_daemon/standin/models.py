"""The models that are served, their aliases, and the body of ``GET /models``."""

from dataclasses import dataclass

from zbeam_daemon.standin import errors


@dataclass(frozen=True, slots=True)
class Model:
    """A served model."""

    id: str
    name: str
    family: str  # models of one family share a concurrency limit
    vision: bool
    fingerprint: str


FLASH = Model("deepseek-flash", "DeepSeek-V4.1-Flash", "flash", True, "fp_8b1f3c20d7_standin1017")
PRO = Model("deepseek-v4-pro", "DeepSeek-V4-Pro", "pro", False, "fp_41d09ea5c2_standin0813")
SERVED = (FLASH, PRO)
FAMILIES = (FLASH.family, PRO.family)
BY_NAME = {
    FLASH.id: FLASH,
    PRO.id: PRO,
    "deepseek-v4-flash": FLASH,
    "deepseek-v4-flash-vision-exp": FLASH,
}
CONTEXT_WINDOW = 1_048_576
MAX_OUTPUT_TOKENS = 393_216


def find(name: str) -> Model:
    """The served model for a name or an alias.

    Raises:
        errors.ApiError: 400 for any other name; deepseek-chat and -reasoner are others by now.
    """
    model = BY_NAME.get(name)
    if model is None:
        raise errors.unknown_model(name, tuple(served.id for served in SERVED))
    return model


def listing() -> dict[str, object]:
    """The body of ``GET /models``."""
    return {
        "object": "list",
        "data": [
            {
                "id": model.id,
                "object": "model",
                "owned_by": "deepseek",
                "name": model.name,
                "context_window": CONTEXT_WINDOW,
                "max_output_tokens": MAX_OUTPUT_TOKENS,
            }
            for model in SERVED
        ],
    }
