"""What happens, in order: one file a flow, no input or output of its own."""
