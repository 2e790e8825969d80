"""The fifty steps, one file a stage, and the engine that runs them (`tasks.step`)."""
