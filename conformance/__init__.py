"""A conformance suite for the homeserver side of the Matrix Application Service API, as a pytest plugin."""

__version__ = "0.1.0"
