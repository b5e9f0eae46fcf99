"""The Model Context Protocol over streamable HTTP, both eras: revisions with sessions, and 2026-07-28 without."""
