"""The service on which the chassis is tested: notes, whose authors are closed by events of another service.

It has one of everything that the chassis offers, and nothing of the product: its contract is `notes.proto` beside this
file, in no descriptor set, document, edge or wheel. `make generate` writes its stubs.
"""
