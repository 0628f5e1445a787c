"""Views of what a run found: the terminal, results.json, the baseline."""
