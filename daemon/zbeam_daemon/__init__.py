"""The zbeam daemon: warm upstream sessions, and everything that callers must share."""
