"""One plug-in of every group, by another author."""
