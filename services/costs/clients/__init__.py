"""Adapters to the outside: price lists, Kafka, the object store."""
