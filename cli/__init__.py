"""The command line: what it can be asked (parser), and a file for each verb that works. It serves nobody."""
