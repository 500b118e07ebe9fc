"""What we know: one file per noun with its record, its rules and its SQL."""
