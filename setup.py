"""Packaging of the one distribution ``zbeam`` from its three rooms."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
ROOMS = {"daemon": "zbeam_daemon", "client": "zbeam_client", "shared": "zbeam_shared"}

version = re.search(
    r'^__version__ = "(.+)"$',
    (HERE / "shared/zbeam_shared/__init__.py").read_text(encoding="utf-8"),
    re.MULTILINE,
)
assert version is not None

STANDIN = ["trustme>=1.2"]
DEV = [
    "pytest>=8.4",
    "pytest-timeout>=2.4",
    "pytest-xdist>=3.8",
    "hypothesis>=6.130",
    "coverage>=7.6",
    "ruff>=0.14",
    "mypy>=1.18",
    "types-jsonschema>=4.23",
    "types-PyYAML>=6.0.12",
    "types-requests>=2.32",
    *STANDIN,
]
# Versions that run on Python 3.11 too, where pip takes an older Sphinx than on 3.12.
DOCS = ["sphinx>=8.2", "myst-parser>=4.0", "furo>=2025.7", "sphinx-click>=6.1"]

setup(
    name="zbeam",
    version=version.group(1),
    description="A local daemon that keeps DeepSeek API sessions warm, and a thin client for it",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.11",
    package_dir={name: f"{room}/{name}" for room, name in ROOMS.items()},
    packages=[p for room in ROOMS for p in find_packages(room)],
    package_data={name: ["py.typed"] for name in ROOMS.values()},
    install_requires=[
        "click>=8.2",
        "gevent>=25.9",
        "jsonschema>=4.23",
        "msgpack>=1.1",
        "msgspec>=0.19",
        "prometheus-client>=0.22",
        "python-dotenv>=1.1",
        "pyyaml>=6.0.2",
        "pyzmq>=27.0",
        "referencing>=0.35",
        "requests>=2.32.4",
        "rich>=14.0",
        "urllib3>=2.5",
        "watchdog>=6.0",
    ],
    extras_require={"standin": STANDIN, "dev": DEV, "docs": DOCS},
    entry_points={
        "console_scripts": [
            "zbeamd = zbeam_daemon.main:main",
            "zbeam-client = zbeam_client.cli.main:main",
        ]
    },
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Intended Audience :: Developers",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Programming Language :: Python :: 3.14",
        "Typing :: Typed",
    ],
)
