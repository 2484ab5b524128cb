"""Blobs by key on S3 or on local disk: artifacts and claim-checked payloads."""
