"""Who may ask how much: the records of keys, and the limits that several replicas share."""
