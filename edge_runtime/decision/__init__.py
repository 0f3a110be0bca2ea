"""From scores to verdicts, and the ledger in which each part has exactly one row."""
