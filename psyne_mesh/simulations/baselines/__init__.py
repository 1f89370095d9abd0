"""Published protocols in the same world and API, so that every claim about `Node` is a ratio."""
