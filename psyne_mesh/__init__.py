"""Multiplayer rooms for Python games, peer to peer over WebRTC data channels, with no game server."""
