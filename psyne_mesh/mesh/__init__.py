"""Links to peers, shared by rooms: the one place where gossip, signaling and WebRTC meet."""
