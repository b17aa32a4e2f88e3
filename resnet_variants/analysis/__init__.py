"""What came out: numbers and tables of numbers."""
