"""A stand-in for the DeepSeek API: real TCP and TLS on loopback, with scripted faults."""
