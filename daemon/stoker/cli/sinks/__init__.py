"""Where events go besides the screen: a file of JSON lines, a webhook."""
