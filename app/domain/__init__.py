"""The rules of the house: pure functions and frozen values; no library but pydantic and a YAML reader."""
