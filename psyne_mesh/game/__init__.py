"""What games build on: shared objects, interpolation, clocks. Pure: no room, no socket, no clock of its own."""
