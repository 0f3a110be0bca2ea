"""The process that inspects: from a station file to a running line."""
