"""Files between this machine and a server: sent, and fetched, many at once and resumable. It runs where the user is."""
