"""The commands of `twin-cloud`, each thin: options in, a table or JSON out, an exit code.

Must never print anything but data on stdout.
"""
