"""The same cells in quarterdeck and in three other tools (`make bench-peers`)."""
