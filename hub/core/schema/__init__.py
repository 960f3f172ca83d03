"""Changes of schemas: planned, carried out over several databases, rehearsed, compared."""
