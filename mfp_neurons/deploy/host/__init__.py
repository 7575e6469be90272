"""The compiled runtime: portable C, and how it is built, fed and called."""
