"""Content runs: one file for each material and component (docs/content-runs.md)."""
