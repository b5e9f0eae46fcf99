"""Where the authority's state outlives the process: SQLite in WAL mode, written by one thread."""
