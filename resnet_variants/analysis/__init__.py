"""What came out: statistics, tables, plots."""
