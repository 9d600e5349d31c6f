"""Contact sheets, curves and exams of the phantoms: `python -m tools.phantom.NAME`."""
