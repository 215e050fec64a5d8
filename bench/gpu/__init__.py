"""Everything that is to be measured on a GPU: ``python -m bench.gpu``."""
