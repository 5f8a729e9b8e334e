"""The values that a material gives to placeholders."""

from __future__ import annotations

from typing import Any

from zbeam_client.content.model import Material

NAMES = (
    *("subject", "subject_lowercase", "subject_slug", "category"),
    *("material_formula", "material_symbol", "material_type", "article_type"),
    *("author_name", "author_id", "persona_country", "timestamp"),
)
"""Those that every material can have, beside its own fields and author_object_FIELD."""


def values_of(material: Material, author: dict[str, Any], timestamp: str) -> dict[str, Any]:
    """Return the values by placeholder; what a material does not have is left out, or None.

    Fields of the item go by their own names too (complexity, laser_parameters, ...), but never
    in place of the names above. ``timestamp`` is the run's, one for all: it is part of prompts
    and never of a content hash (``template.NEVER_HASHED``).
    """
    fields = material.fields
    return {
        **fields,
        **{f"author_object_{key}": value for key, value in author.items()},
        "subject": material.name,
        "subject_lowercase": material.name.lower(),
        "subject_slug": material.slug,
        "category": material.category,
        "material_formula": fields.get("formula"),
        "material_symbol": fields.get("symbol"),
        "material_type": fields.get("material_type") or material.category,
        "article_type": fields.get("article_type") or "material",
        "author_name": author.get("name"),
        "author_id": material.author_id,
        "persona_country": author.get("country"),
        "timestamp": timestamp,
    }
