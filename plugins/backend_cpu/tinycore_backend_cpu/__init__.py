"""Native code for the processor this Python runs on."""
