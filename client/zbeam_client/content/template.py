"""Templates of prompts: str.format's placeholders, without its reach into objects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def render(template: str, values: Mapping[str, Any], parsed: Mapping[str, Any]) -> str:
    """Return the prompt: ``parsed`` holds the fields of each dependency by its component's name.

    Raises ``ValueError`` that names the placeholder which has no value.
    """
    raise NotImplementedError


def hashed_values(template: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return those values that ``template`` uses, without {timestamp}.

    They are what a file's content hash is made of, beside the template: a later run of the same
    data must find the same hash.
    """
    raise NotImplementedError
