"""The records in a relational database, split by aggregate: SQLite on a laptop, PostgreSQL beyond it."""
