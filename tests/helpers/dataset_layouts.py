"""The twelve downstream data sets in the layouts of their distributors, with a few small pictures that the tests make.

Each function writes one below a folder and returns the classes of the training and of the test images.
"""

from __future__ import annotations

import pickle

import numpy as np
from PIL import Image
from scipy.io import savemat


def picture(path, value=0, size=(10, 12)):
    """A JPEG or PNG of one grey level, 10 x 12."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, value, value)).save(path)
    return path


def lines(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(rows) + "\n")


def aircraft(root):
    lines(root / "data/variants.txt", ["707-320", "A 310"])
    for split, numbers in (("trainval", "12"), ("test", "34")):
        lines(root / f"data/images_variant_{split}.txt", [f"{numbers[0]} A 310", f"{numbers[1]} 707-320"])
        for number in numbers:
            picture(root / f"data/images/{number}.jpg", int(number))
    return [1, 0], [1, 0]


def birds(root):
    rows = ["url\tmd5\tpath\tspecies_id\tbb_x1"]
    for i, name in enumerate(("Crow/1.jpg", "Crow/2.jpg", "Owl/3.jpg", "Owl/4.jpg", "Owl/gone.jpg")):
        rows.append(f"http://x\t0\t{name}\t{1 + (i > 1)}\t0")
        if "gone" not in name:
            picture(root / "images" / name)
    lines(root / "images.txt", rows)
    lines(root / "test_images.txt", ["path", "Crow/2.jpg", "Owl/4.jpg"])
    return [0, 1], [0, 1]


def caltech101(root):
    for name in ("BACKGROUND_Google", "ant", "bass"):
        for i in range(31 if name == "ant" else 32):
            picture(root / f"101_ObjectCategories/{name}/image_{i + 1:04d}.jpg")
    return [0] * 30 + [1] * 30, [0, 1, 1]


def caltech256(root):
    for name in ("001.ak47", "257.clutter"):
        for i in range(61):
            picture(root / f"256_ObjectCategories/{name}/{name[:3]}_{i + 1:04d}.jpg")
    picture(root / "256_ObjectCategories/001.ak47/greg/other.jpg")
    (root / "256_ObjectCategories/001.ak47/RENAME2").write_text("no image")
    return [0] * 60 + [1] * 60, [0, 1]


def cars(root):
    dtype = [("bbox_x1", "O"), ("class", "O"), ("fname", "O")]
    for split, at in (
        ("train", root / "devkit/cars_train_annos.mat"),
        ("test", root / "cars_test_annos_withlabels.mat"),
    ):
        rows = np.array([(1, 2, "00001.jpg"), (1, 1, "00002.jpg")], dtype=dtype)
        at.parent.mkdir(parents=True, exist_ok=True)
        savemat(at, {"annotations": rows}, do_compression=True)
        for name in ("00001.jpg", "00002.jpg"):
            picture(root / f"cars_{split}" / name)
    return [1, 0], [1, 0]


def cifar10(root):
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    for name in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]:
        content = {b"data": np.zeros((2, 3072), np.uint8), b"labels": [1, 0]}
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    return [1, 0] * 5, [1, 0]


def cifar100(root):
    for name in ("train", "test"):
        rows = np.zeros((2, 3074), np.uint8)
        rows[:, 0], rows[:, 1] = 7, (1, 0)
        (root / f"{name}.bin").write_bytes(rows.tobytes())
    return [1, 0], [1, 0]


def dtd(root):
    for split, names in (("train", ["dots/1.jpg"]), ("val", ["lined/2.jpg"]), ("test", ["lined/3.jpg", "dots/4.jpg"])):
        lines(root / f"labels/{split}1.txt", names)
        for name in names:
            picture(root / "images" / name)
    return [0, 1], [1, 0]


def flowers(root):
    savemat(root / "imagelabels.mat", {"labels": np.array([[2, 1, 2, 1]])})
    savemat(root / "setid.mat", {"trnid": [[1]], "valid": [[2]], "tstid": [[4, 3]]})
    for i in range(1, 5):
        picture(root / f"jpg/image_{i:05d}.jpg")
    return [1, 0], [0, 1]


def food101(root):
    lines(root / "meta/classes.txt", ["apple_pie", "beignets"])
    for split, names in (("train", ["apple_pie/1", "beignets/2"]), ("test", ["beignets/3", "apple_pie/4"])):
        lines(root / f"meta/{split}.txt", names)
        for name in names:
            picture(root / f"images/{name}.jpg")
    return [0, 1], [1, 0]


def pets(root):
    lines(root / "annotations/trainval.txt", ["Abyssinian_1 1 1 1", "beagle_2 2 2 1"])
    lines(root / "annotations/test.txt", ["beagle_3 2 2 1", "Abyssinian_4 1 1 1"])
    for name in ("Abyssinian_1", "beagle_2", "beagle_3", "Abyssinian_4"):
        picture(root / f"images/{name}.jpg")
    return [0, 1], [1, 0]


def sun397(root):
    lines(root / "ClassName.txt", ["/a/abbey", "/z/zoo/indoor"])
    for split, names in (("Training", ["/a/abbey/1.jpg"]), ("Testing", ["/z/zoo/indoor/2.jpg", "/a/abbey/3.jpg"])):
        lines(root / f"{split}_01.txt", names)
        for name in names:
            picture(root / name[1:])
    return [0], [1, 0]


MAKERS = [aircraft, birds, caltech101, caltech256, cars, cifar10, cifar100, dtd, flowers, food101, pets, sun397]
