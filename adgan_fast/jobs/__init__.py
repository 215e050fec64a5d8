"""Jobs: many images through one search."""
