"""Floor 4: the command line, a thin client of the API. One module per command, loaded when it is called."""
