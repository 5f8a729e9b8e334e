"""Configuration: one table of keys (``schema``), loaded whole or not at all (``load``)."""
