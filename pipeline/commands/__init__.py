"""The commands as the user types them: options in, one call of a program. Each imports only what it needs."""
