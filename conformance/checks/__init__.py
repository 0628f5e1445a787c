"""The checks: one file per area of the catalogue, in catalogue order."""
