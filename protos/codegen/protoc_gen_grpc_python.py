"""A protoc plugin that writes the `*_pb2_grpc.py` stubs and their types, `*_pb2_grpc.pyi`.

grpcio-tools keeps its stub generator inside its own protoc, where buf cannot call it. This reads the request that buf
sends to a plugin, lets that protoc generate from the request's descriptors, and answers with the files.

The types are mypy-protobuf's. It declares a class `…AsyncStub` for each service, which the generated module lacks, and
writes types for modules that do not exist. Here every name that the types declare can be imported.
"""

from __future__ import annotations

import pathlib
import subprocess
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
        services = {
            file.name.removesuffix(".proto"): [each.name for each in file.service] for file in request.proto_file
        }
        for file in sorted(path for path in out.rglob("*") if path.is_file()):
            name = file.relative_to(out).as_posix()
            aliases = _async_stubs(services[name.removesuffix("_pb2_grpc.py")])
            response.file.add(name=name, content=file.read_text() + aliases)
    response.file.extend(_types(request, modules={each.name for each in response.file}))
    return response


def _async_stubs(services: list[str]) -> str:
    """Return the lines that define the asynchronous stubs: the same classes, for a channel of grpc.aio."""
    lines = [f"{service}AsyncStub = {service}Stub  # on a channel of grpc.aio\n" for service in services]
    return "".join(["\n\n", *lines])


def _types(
    request: plugin_pb2.CodeGeneratorRequest, *, modules: set[str]
) -> list[plugin_pb2.CodeGeneratorResponse.File]:
    """Return mypy-protobuf's types for these modules."""
    plugin = pathlib.Path(sys.executable).with_name("protoc-gen-mypy_grpc")
    done = subprocess.run([plugin], input=request.SerializeToString(), capture_output=True, check=True)  # noqa: S603  a fixed program
    response = plugin_pb2.CodeGeneratorResponse.FromString(done.stdout)
    files = [file for file in response.file if file.name.removesuffix("i") in modules]
    for file in files:
        # The marker says that a class does not exist at run time; these do.
        file.content = file.content.replace("@_typing.type_check_only\n", "")
    return files


if __name__ == "__main__":
    answer = generate(plugin_pb2.CodeGeneratorRequest.FromString(sys.stdin.buffer.read()))
    sys.stdout.buffer.write(answer.SerializeToString())
