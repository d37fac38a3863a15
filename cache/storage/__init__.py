"""The storage of a cache: a local folder or an object store, and the leases in it."""
