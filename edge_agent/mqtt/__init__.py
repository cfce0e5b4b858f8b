"""The way to the broker: connections, what they allow, what is offered next and at what pace.

Must never decide what a message means.
"""
