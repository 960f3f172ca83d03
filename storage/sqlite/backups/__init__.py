"""Copies of database files: made from a snapshot, compared, put in a database's place."""
