"""Public sets, a module each or a family: `ADAPTERS` holds its adapters. `vlmend.data.catalogue` finds them."""
