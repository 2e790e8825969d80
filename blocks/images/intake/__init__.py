"""Taking in an image from a file or a URL: fetch, unpack, inspect, convert, put into the store."""
