"""Arrays, lists and long tables of series to encoded tables."""
