"""Items as the API shows them: their ids, lists of them, and the history they make."""
