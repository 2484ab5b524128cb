"""The public origin: accepts requests onto Kafka, brings answers back, serves the stored state."""
