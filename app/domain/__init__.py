"""The rules of the house: pure functions and frozen values, no library but pydantic (and YAML, for the catalogue file)."""
