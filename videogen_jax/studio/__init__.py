"""The studio: a server with an HTTP interface and a page, on which videos are made and looked at."""
