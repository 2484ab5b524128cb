"""The files that items name, fetched and put in their place."""
