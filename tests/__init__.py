"""The tests; they mirror the package. What they share is in support/."""
