"""The edit memory: a durable log, an encoder and an index."""
