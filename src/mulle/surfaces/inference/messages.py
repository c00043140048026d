"""The messages of the Open Inference Protocol's gRPC service, from a table of their fields; no generated code.

Service and field numbers: https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/open_inference_grpc.proto
and, for the repository,
https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_model_repository.md
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory  # type: ignore[import-untyped]

__all__ = ["METHODS", "PACKAGE", "SERVICE", "messages"]

PACKAGE = "inference"
SERVICE = f"{PACKAGE}.GRPCInferenceService"

METHODS = (
    "ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelInfer", "RepositoryIndex",
    "RepositoryModelLoad", "RepositoryModelUnload",
)  # fmt: skip
"""Each takes ``<method>Request`` and gives ``<method>Response``."""

# Message to its fields, in the order of their numbers; "*" is a list, "{X}" a map from text to X, "|" one of several.
_FIELDS = {
    "ServerLiveRequest": "",
    "ServerLiveResponse": "live:bool",
    "ServerReadyRequest": "",
    "ServerReadyResponse": "ready:bool",
    "ModelReadyRequest": "name:string version:string",
    "ModelReadyResponse": "ready:bool",
    "ServerMetadataRequest": "",
    "ServerMetadataResponse": "name:string version:string extensions:string*",
    "ModelMetadataRequest": "name:string version:string",
    "ModelMetadataResponse.TensorMetadata": "name:string datatype:string shape:int64*",
    "ModelMetadataResponse": "name:string versions:string* platform:string inputs:ModelMetadataResponse.TensorMetadata* "
    "outputs:ModelMetadataResponse.TensorMetadata*",
    "InferParameter": "bool_param:bool| int64_param:int64| string_param:string| double_param:double| uint64_param:uint64|",
    "InferTensorContents": "bool_contents:bool* int_contents:int32* int64_contents:int64* uint_contents:uint32* "
    "uint64_contents:uint64* fp32_contents:float* fp64_contents:double* bytes_contents:bytes*",
    "ModelInferRequest.InferInputTensor": "name:string datatype:string shape:int64* parameters:{InferParameter} "
    "contents:InferTensorContents",
    "ModelInferRequest.InferRequestedOutputTensor": "name:string parameters:{InferParameter}",
    "ModelInferRequest": "model_name:string model_version:string id:string parameters:{InferParameter} "
    "inputs:ModelInferRequest.InferInputTensor* outputs:ModelInferRequest.InferRequestedOutputTensor* raw_input_contents:bytes*",
    "ModelInferResponse.InferOutputTensor": "name:string datatype:string shape:int64* parameters:{InferParameter} "
    "contents:InferTensorContents",
    "ModelInferResponse": "model_name:string model_version:string id:string parameters:{InferParameter} "
    "outputs:ModelInferResponse.InferOutputTensor* raw_output_contents:bytes*",
    "ModelRepositoryParameter": "bool_param:bool| int64_param:int64| string_param:string| bytes_param:bytes|",
    "RepositoryIndexRequest": "repository_name:string ready:bool",
    "RepositoryIndexResponse.ModelIndex": "name:string version:string state:string reason:string",
    "RepositoryIndexResponse": "models:RepositoryIndexResponse.ModelIndex*",
    "RepositoryModelLoadRequest": "repository_name:string model_name:string parameters:{ModelRepositoryParameter}",
    "RepositoryModelLoadResponse": "",
    "RepositoryModelUnloadRequest": "repository_name:string model_name:string parameters:{ModelRepositoryParameter}",
    "RepositoryModelUnloadResponse": "",
}

_Field = descriptor_pb2.FieldDescriptorProto


def messages() -> dict[str, Any]:
    """Make the message classes, by name within the package.

    They live in a pool of their own, so that a client library of the same protocol in this process does not meet them.
    """
    file = descriptor_pb2.FileDescriptorProto(name="mulle/inference.proto", package=PACKAGE, syntax="proto3")
    made: dict[str, Any] = {}
    # The outer message comes first, whatever the table's order.
    for name in sorted(_FIELDS, key=lambda n: n.count(".")):
        outer, _, own = name.rpartition(".")
        made[name] = made[outer].nested_type.add(name=own) if outer else file.message_type.add(name=name)
    for name, text in _FIELDS.items():
        for number, field in enumerate(text.split(), start=1):
            _add(made[name], f".{PACKAGE}.{name}", number, *field.split(":"))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}")) for name in _FIELDS}


def _add(message: Any, path: str, number: int, name: str, kind: str) -> None:
    field = message.field.add(name=name, number=number, label=_Field.LABEL_OPTIONAL)
    if kind.startswith("{"):
        entry = message.nested_type.add(name=f"{name.title()}Entry")
        entry.options.map_entry = True
        _add(entry, "", 1, "key", "string")
        _add(entry, "", 2, "value", kind[1:-1])
        field.label, field.type, field.type_name = _Field.LABEL_REPEATED, _Field.TYPE_MESSAGE, f"{path}.{entry.name}"
        return
    if kind.endswith("*"):
        field.label, kind = _Field.LABEL_REPEATED, kind[:-1]
    if kind.endswith("|"):
        kind = kind[:-1]
        if not message.oneof_decl:
            message.oneof_decl.add(name="parameter_choice")
        field.oneof_index = 0
    if kind in _FIELDS:
        field.type, field.type_name = _Field.TYPE_MESSAGE, f".{PACKAGE}.{kind}"
    else:
        field.type = _Field.Type.Value(f"TYPE_{kind.upper()}")
