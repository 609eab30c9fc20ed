"""Who is ahead: scores, entries, rows, tables."""
