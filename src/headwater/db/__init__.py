"""PostgreSQL itself: start it, connect to it, bring its schema up to date."""
