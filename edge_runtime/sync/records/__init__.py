"""What becomes a record, and in which form."""
