"""Driver (default): local process trees."""
