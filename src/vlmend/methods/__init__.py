"""One file a mend method."""
