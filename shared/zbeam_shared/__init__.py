"""What the zbeam daemon and its clients agree on: messages, frames, errors, places."""

__version__ = "0.1.0"
