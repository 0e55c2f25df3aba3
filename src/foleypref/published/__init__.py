"""Networks published by others: which files, under which licence, how they are fetched, read and filled."""
