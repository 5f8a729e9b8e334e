"""A small site on disk, good as it is, for tests to break."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from zbeam_client.content.model import Plan
from zbeam_client.content.plan import DEFAULT_PATTERN, Selection, make_plan
from zbeam_client.content.problems import DataError
from zbeam_client.content.project import Project, load_project

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)

MATERIALS = """\
parameter_templates:
  standard: {wavelength: 1064 nm, power_range: 20-100 W}
materials:
  ceramic:
    items:
      - {name: Alumina, author_id: 1, complexity: high, category: ceramic, formula: Al2O3,
         symbol: Al-O, laser_parameters_template: standard, applications: [a, b]}
      - {name: Zirconia, author_id: 2, category: ceramic, formula: ZrO2}
  metal:
    items:
      - {name: Stainless Steel 316L, author_id: 1, formula: Fe-Cr-Ni-Mo}
"""
AUTHORS = [
    {"id": 1, "name": "Ann", "country": "Norway", "title": "Dr."},
    {"id": 2, "name": "Bo", "country": "Chile"},
]


class Site:
    """The data's folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.out = root / "out"
        self.write("data/materials.yaml", MATERIALS)
        self.authors(AUTHORS)
        self.component("frontmatter", "Instructions first.\nMaterial: {subject}\n")
        self.component("caption", "A caption for {frontmatter[title]}.", depends_on=["frontmatter"])

    def write(self, name: str, content: str | bytes) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def items(self, *items: dict[str, Any]) -> None:
        """Replace the materials by these, as one category."""
        self.write("data/materials.yaml", json.dumps({"materials": {"metal": {"items": items}}}))

    def authors(self, authors: Any) -> None:
        self.write("components/author/authors.json", json.dumps(authors))

    def component(self, name: str, template: str, **more: Any) -> None:
        # JSON is YAML.
        text = json.dumps({"name": name, "template": template, **more})
        self.write(f"components/{name}/prompt.yaml", text)

    def project(self) -> Project:
        return load_project(self.root)

    def plan(
        self,
        *components: str,
        materials: tuple[str, ...] = (),
        category: str | None = None,
        pattern: str = DEFAULT_PATTERN,
        model: str | None = None,
    ) -> Plan:
        selection = Selection(materials, category, components)
        return make_plan(self.project(), selection, self.out, pattern, model, now=NOW)

    def problems(self, *components: str, **selection: Any) -> list[str]:
        """Everything that is wrong, a line each; [] if nothing is."""
        try:
            self.plan(*components, **selection)
        except DataError as error:
            assert (error.code, error.exit_status) == ("bad_request", 2)
            return [str(problem) for problem in error.problems]
        return []


def material(name: str = "Iron", **fields: Any) -> dict[str, Any]:
    return {"name": name, "author_id": 1, **fields}
