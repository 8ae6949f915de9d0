"""Floor 1: text to `DesiredState`. Only `sources` reads disk and environment."""
