"""A small zoo of dense NNX models (channels last), and a loader for published PyTorch checkpoints."""

from sparsejax._surface import attributes as _attributes
from sparsejax.models._bert import Bert
from sparsejax.models._convnet import ConvNet
from sparsejax.models._gpt import GPT
from sparsejax.models._head import body_kernels, find_head, new_classifier, with_new_head, without_head
from sparsejax.models._mlp import MLP
from sparsejax.models._mobilenet import MobileNetV1, SeparableConv, mobilenet_v1
from sparsejax.models._registry import MODEL_NAMES, build, stem_of_torch
from sparsejax.models._resnet import BasicBlock, Bottleneck, ResNet, resnet18, resnet50
from sparsejax.models._torch_load import LoadReport, load_torch, load_torch_state_dict
from sparsejax.models._torch_save import save_torch_state_dict
from sparsejax.models._vit import ViT, vit
from sparsejax.models._wide_resnet import WideBlock, WideResNet, wide_resnet

__all__ = [
    "GPT",
    "MLP",
    "MODEL_NAMES",
    "BasicBlock",
    "Bert",
    "Bottleneck",
    "ConvNet",
    "LoadReport",
    "MobileNetV1",
    "ResNet",
    "SeparableConv",
    "ViT",
    "WideBlock",
    "WideResNet",
    "body_kernels",
    "build",
    "find_head",
    "load_torch",
    "load_torch_state_dict",
    "mobilenet_v1",
    "new_classifier",
    "resnet18",
    "resnet50",
    "save_torch_state_dict",
    "stem_of_torch",
    "vit",
    "wide_resnet",
    "with_new_head",
    "without_head",
]

__getattr__, __dir__ = _attributes(__name__)
