"""Credentials: the tenant's token, kept by Prefect and named by requests."""
