"""The database: its schema, how to reach it from any version, and one to develop on."""
