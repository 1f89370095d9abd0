"""Where players of one room find each other, and through which their first offers travel.

    server.open_server, serve      the server: one port for WebSockets, /healthz, /stats and /rooms
    client.connect_signaling       a connection to it that comes back by itself
    memory.open_memory_signaling   the same inside one process, with hooks to break it
    transport.SignalingTransport   what the mesh needs; bring your own
    envelope                       sealed offers, answers and candidates: none of the above has to be trusted
    events, messages, registry     what happened; the words on the wire; who is in which room

Nothing is imported here, so that the pure parts also run where there are no sockets.
"""
