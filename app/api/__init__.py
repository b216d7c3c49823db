"""One self-contained file per dialect, and what they share of HTTP."""
