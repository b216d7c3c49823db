"""The history of the schema; app/db/migrate.py runs it."""
