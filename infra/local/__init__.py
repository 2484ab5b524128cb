"""The stack on one machine without containers: real servers and all services, supervised."""
