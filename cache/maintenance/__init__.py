"""Looking after a cache: list, verify, collect garbage, convert."""
