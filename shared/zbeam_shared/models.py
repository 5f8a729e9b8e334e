"""Names in DeepSeek's API that daemon and client both know (docs/deepseek-api.md)."""

from __future__ import annotations

RETIRED = frozenset({"deepseek-chat", "deepseek-reasoner"})
"""Models that it served once and serves no more; other APIs may have them."""
EFFORTS = ("minimal", "low", "medium", "high", "xhigh", "max", "ultra")
"""What ``reasoning_effort`` may be, from the least to the most."""
