"""The service of one host: a Prefect worker whose flow runs start from a warm process."""
