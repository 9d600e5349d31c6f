"""From a name or folder to a target."""
