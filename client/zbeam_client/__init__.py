"""The thin zbeam client: a command and a Python library."""
