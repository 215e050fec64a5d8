"""A race of engines and peers: cases, the gate, the clock, rows and tables."""
