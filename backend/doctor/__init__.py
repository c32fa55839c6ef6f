"""`fanfare doctor`: looks at every setting and connection, and says how to mend what is wrong."""
