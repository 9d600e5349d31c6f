"""Labels that people give."""
