"""Mends for other runtimes: each module interprets edits for one of them, or refuses with every reason."""
