"""The handshake of DTLS 1.3 (RFC 9147, RFC 8446), without I/O and without cryptography of its own.

`client` and `server` deal with the hellos, of which nobody knows yet who wrote them; `core` with everything after them, in
both roles; `flight` and `reassembly` with what gets lost on the way. Not here, on purpose: pre-shared keys and 0-RTT (a
resumed session would skip the certificate), connection ids (ICE knows the path), cookies as a server (ICE has proved the
address).
"""
