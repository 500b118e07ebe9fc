"""Small functions for those who prefer code: each sends a bucket's events to the hook. Printed as they are."""
