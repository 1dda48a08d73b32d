"""Arrays and data frames to encoded tables, and completed cells back to frames."""
