"""The pages that a browser shows of this box: operator, review, technician."""
