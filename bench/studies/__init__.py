"""Measurements that settled a choice; each is a command, ``python -m bench.studies.NAME``."""
