"""Namespaces of appservices as a subject of fuzzing: regular expressions that mean the same to every homeserver, IDs
inside, outside and at their edges, and what a homeserver must say about them.

:mod:`.shapes` are the regular expressions, :mod:`.ids` the IDs, :mod:`.oracle` says which answer is right where the
specification leaves only one, :mod:`.cells` makes the namespaces of the fuzz registrations, :mod:`.strategies` and
:mod:`.hunt` have Hypothesis look for wrong answers, and :mod:`.readings` tells from the cases that are left open how a
homeserver reads regular expressions. :mod:`.fuzz` puts a run together, :mod:`.worlds` reboots homeservers.
"""
