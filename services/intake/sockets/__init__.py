"""WebSocket sessions, without the sockets."""
