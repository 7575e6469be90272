"""The laboratory: what makes this project's numbers. It runs from a checkout and is in no wheel."""
