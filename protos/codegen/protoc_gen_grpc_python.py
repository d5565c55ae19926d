"""A protoc plugin that writes the `*_pb2_grpc.py` stubs.

grpcio-tools keeps its stub generator inside its own protoc, where buf cannot call it. This reads the request that buf
sends to a plugin, lets that protoc generate from the request's descriptors, and answers with the files.
"""

from __future__ import annotations

import pathlib
import sys
import tempfile

from google.protobuf import descriptor_pb2
from google.protobuf.compiler import plugin_pb2
from grpc_tools import protoc


def generate(request: plugin_pb2.CodeGeneratorRequest) -> plugin_pb2.CodeGeneratorResponse:
    """Return one stub file for each file to generate that declares a service."""
    response = plugin_pb2.CodeGeneratorResponse(
        supported_features=plugin_pb2.CodeGeneratorResponse.FEATURE_PROTO3_OPTIONAL
    )
    with_services = {file.name for file in request.proto_file if file.service}
    wanted = [name for name in request.file_to_generate if name in with_services]
    if not wanted:
        return response
    with tempfile.TemporaryDirectory() as folder:
        descriptors = pathlib.Path(folder, "descriptors.binpb")
        descriptors.write_bytes(descriptor_pb2.FileDescriptorSet(file=request.proto_file).SerializeToString())
        out = pathlib.Path(folder, "out")
        out.mkdir()
        exit_code = protoc.main(["protoc", f"--descriptor_set_in={descriptors}", f"--grpc_python_out={out}", *wanted])
        if exit_code:
            response.error = f"the grpc_python generator failed with exit code {exit_code}"
        for file in sorted(path for path in out.rglob("*") if path.is_file()):
            response.file.add(name=file.relative_to(out).as_posix(), content=file.read_text())
    return response


if __name__ == "__main__":
    answer = generate(plugin_pb2.CodeGeneratorRequest.FromString(sys.stdin.buffer.read()))
    sys.stdout.buffer.write(answer.SerializeToString())
