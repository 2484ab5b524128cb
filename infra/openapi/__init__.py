"""The OpenAPI document of the HTTP API: what intake serves at `/openapi.json`."""
