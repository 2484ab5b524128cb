"""The MCP broker against real MCP servers, PostgreSQL and Kafka."""
