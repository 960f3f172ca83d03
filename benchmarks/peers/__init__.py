"""What is measured: one file per system, with its server and how a load calls it.

A module here has `drive(target, operation, callers)`, an async context that gives the call that one
caller makes again and again. It runs in the process of the load generator; `target` is what the
module's own server said about itself, as JSON.
"""
