"""A generator: what it is, what it must not do, and its road from a module or a file to a `Program`."""
