"""The engine "native": the whole search in the C++ extension."""
