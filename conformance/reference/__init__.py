"""A homeserver that conforms: small, in memory, one process.

It is what `--hs reference` and ``python -m conformance.reference`` start. It proves the checks (it passes them all, and
with a defect it fails exactly the right ones), and its policies are the readable answer to the question what the
specification wants of a homeserver. It is no homeserver to talk on: no federation, no encryption, no rights of others.
"""
