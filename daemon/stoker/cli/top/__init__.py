"""The live screen of `stoker top`; loaded only by it."""
