"""Every interpreter of edits."""
