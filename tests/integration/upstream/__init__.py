"""The scripted upstream itself, over real sockets."""
