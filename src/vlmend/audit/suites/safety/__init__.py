"""Safety suites."""
