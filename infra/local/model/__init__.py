"""A real, small chat model on this machine, served as OpenAI Chat Completions."""
