"""The gRPC server, and the steps around every call: access, validation, status, pages."""
