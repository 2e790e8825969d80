"""Tests of the service: `fifty serve`, deployments, schedules, the API and the UI."""
