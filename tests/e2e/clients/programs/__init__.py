"""Small programs, each written as its client's manual says; only base URL and key are ours."""
