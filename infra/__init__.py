"""What runs and operates the platform; no service imports it."""
