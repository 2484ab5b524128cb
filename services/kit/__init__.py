"""What every service needs and no business noun: settings, telemetry, Kafka, database, health."""
