"""The command line: every command speaks to a server over HTTP, but for those that start one."""
