"""The ``zbeam-client`` command."""
