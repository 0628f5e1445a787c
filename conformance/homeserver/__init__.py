"""The homeserver under test: how to reach, start and stop it, and the client that drives it."""
