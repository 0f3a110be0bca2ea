"""Pictures and sound as files and arrays."""
