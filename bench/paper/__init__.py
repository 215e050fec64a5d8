"""The paper's experiments (Sect. 4), a command each: ``python -m bench.paper NAME --data … --out …``."""
