"""How long it takes to load and plan a large site, and how much memory.

    python bench/content_plan.py [MATERIALS]

Writes a site of generated data (5,000 materials, 7 components) to a temporary folder and plans
it in a process of its own, as ``zbeam-client generate --all`` does before its first request.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

CATEGORIES = 8
COMPONENTS = ("frontmatter", "metatags", "bullets", "caption", "text", "tags", "jsonld")
INSTRUCTIONS = "Write with care; give figures with their units; leave nothing open.\n" * 40
ITEM = """\
      - name: Material {n}
        author_id: {author}
        complexity: medium
        category: category-{category}
        formula: X{n}O3
        symbol: X{n}
        laser_parameters: {{template: standard, power_range: "20-{n} W"}}
        applications:
          - "Aerospace: removal of coatings and surface contaminants, part {n}"
          - "Semiconductor: cleaning of substrates for integrated circuits"
          - "Restoration: careful work on historical objects"
        industry_tags: [Aerospace, Semiconductor, Restoration]
"""
PLANNED = """
import json, resource, sys, time
from datetime import datetime, timezone
from pathlib import Path
begin = time.perf_counter()
from zbeam_client.content.plan import Selection, make_plan
from zbeam_client.content.project import load_project
imported = time.perf_counter()
project = load_project(Path(sys.argv[1]))
loaded = time.perf_counter()
plan = make_plan(project, Selection(), Path(sys.argv[1], "out"), now=datetime.now(timezone.utc))
planned = time.perf_counter()
kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"tasks": len(plan.tasks), "import": imported - begin, "load": loaded - imported,
                  "plan": planned - loaded, "rss_mb": kilobytes / 1024}))
"""


def write_site(root: Path, materials: int) -> None:
    lines = ["parameter_templates:", "  standard: {wavelength: 1064 nm, spot_size: 0.1-2 mm}"]
    lines.append("materials:")
    for category in range(CATEGORIES):
        lines += [f"  category-{category}:", "    article_type: material", "    items:"]
        for n in range(category, materials, CATEGORIES):
            lines.append(ITEM.format(n=n, author=n % 4 + 1, category=category).rstrip())
    (root / "data").mkdir()
    (root / "data/materials.yaml").write_text("\n".join(lines) + "\n")
    (root / "components/author").mkdir(parents=True)
    authors = [{"id": n, "name": f"Author {n}", "country": "Norway"} for n in range(1, 5)]
    (root / "components/author/authors.json").write_text(json.dumps(authors))
    for name in COMPONENTS:
        prompt = {
            "name": name,
            "template": INSTRUCTIONS
            + "Material: {subject} ({material_formula}), {category}, by {author_name}.\n"
            + "Laser: {laser_parameters}. Uses: {applications}.\n"
            + ("" if name == "frontmatter" else "Title: {frontmatter[title]}\n"),
            "parameters": {"max_tokens": 2000, "temperature": 0.3},
            "depends_on": [] if name == "frontmatter" else ["frontmatter"],
        }
        (root / "components" / name).mkdir()
        # JSON is YAML.
        (root / "components" / name / "prompt.yaml").write_text(json.dumps(prompt))


def main() -> None:
    materials = int(sys.argv[1]) if len(sys.argv) > 1 else 5000
    with tempfile.TemporaryDirectory(prefix="zb-plan-") as folder:
        write_site(Path(folder), materials)
        done = subprocess.run(
            [sys.executable, "-c", PLANNED, folder], capture_output=True, check=True, text=True
        )
    found = json.loads(done.stdout)
    seconds = found["import"] + found["load"] + found["plan"]
    met = seconds < 3 and found["rss_mb"] < 300
    print(
        f"{materials} materials, {found['tasks']} tasks: {seconds:.2f} s "
        f"(imports {found['import']:.2f}, load {found['load']:.2f}, plan {found['plan']:.2f}), "
        f"{found['rss_mb']:.0f} MB\naim for 5000: under 3 s and 300 MB - "
        f"{'met' if met else 'NOT met'}"
    )


if __name__ == "__main__":
    main()
