"""The table of shapes, and how words select from it."""

import pytest

from sparsejax_bench.cases import _shapes
from sparsejax_bench.cases._shapes import Shape


def test_every_shape_of_the_table_is_a_layer_with_a_name_of_its_own():
    shapes = _shapes.load(_shapes.TABLE)
    assert len({shape.name for shape in shapes}) == len(shapes) > 50
    assert {shape.set for shape in shapes} == {
        "paper",
        "resnet18",
        "resnet50",
        "mobilenet",
        "transformer",
        "mlp",
        "untuned",
    }
    assert all(min(shape.y) >= 1 and len(shape.x) == len(shape.y) for shape in shapes)


def test_the_layers_of_the_paper_are_there():
    linear, conv, _ = _shapes.select(["paper"])
    assert (linear.x, linear.kernel, linear.y) == ((902, 768), (768, 3072), (902, 3072))
    assert (conv.x[1:], conv.kernel, conv.y[1:]) == ((7, 7, 128), (3, 3, 128, 256), (7, 7, 256))


def test_untuned_shapes_are_awkward():
    shapes = _shapes.select([_shapes.UNTUNED])
    assert {shape.batch for shape in shapes} >= {1, 3, 8, 16, 48, 100, 256}
    assert {shape.stride for shape in shapes} >= {1, 2, 3}
    assert {"linear", "conv", "conv1d"} == {shape.kind for shape in shapes}
    assert any((shape.window_h, shape.window_w) == (5, 5) for shape in shapes)
    assert any(shape.in_features % 2 and shape.out_features % 2 for shape in shapes)


def test_words_select_sets_names_and_files_once_each(tmp_path):
    file = tmp_path / "mine.csv"
    file.write_text(
        "set,name,kind,batch,in_features,out_features\nmine,a,linear,2,3,4\nmine,mlp-784-1024,linear,1,1,1\n"
    )
    names = [shape.name for shape in _shapes.select(["mlp-784-1024", "mlp", str(file)])]
    assert names[0] == "mlp-784-1024" and names[-1] == "a" and len(set(names)) == len(names)
    assert _shapes.select([]) == _shapes.load(_shapes.TABLE)


@pytest.mark.parametrize(
    ("word", "message"),
    [("resnet19", "Did you mean 'resnet"), ("zzz", "Sets are paper, resnet18")],
)
def test_unknown_words_are_refused_with_a_hint(word, message):
    with pytest.raises(ValueError, match=message):
        _shapes.select([word])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "conv3d"}, "kind 'conv3d'"),
        ({"kind": "linear", "height": 2}, "height 2; expected 1 in a linear layer"),
        ({"kind": "conv1d", "window_h": 3}, "window_h 3; expected 1 in a conv1d layer"),
        ({"kind": "conv", "batch": 0}, "batch 0; expected a positive integer"),
        ({"kind": "conv", "height": 2, "width": 2, "window_h": 3, "window_w": 3}, "a window that fits"),
    ],
)
def test_what_is_no_layer_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Shape(**({"set": "s", "name": "n", "batch": 1, "in_features": 1, "out_features": 1} | fields))


def test_unknown_columns_are_refused(tmp_path):
    file = tmp_path / "mine.csv"
    file.write_text("set,name,colour\n")
    with pytest.raises(ValueError, match="colour"):
        _shapes.load(file)
