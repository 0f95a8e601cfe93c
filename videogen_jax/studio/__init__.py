"""The studio: a server with an HTTP interface and a web page for making and viewing videos."""
