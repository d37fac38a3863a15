"""Where a cache lies: a local folder or an object store, and the leases in it."""
