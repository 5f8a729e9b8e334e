"""Names of models that DeepSeek served once and serves no more; other APIs may have them."""

from __future__ import annotations

RETIRED = frozenset({"deepseek-chat", "deepseek-reasoner"})
