"""Run a notebook's text pair and save it with its outputs: ``python notebooks/execute.py bias``."""

import base64
import io
import sys
from pathlib import Path

import jupytext
from nbclient import NotebookClient
from PIL import Image


def smaller(png: str) -> str:
    """Return the picture with a palette of 256 colours, spread so that colour bars stay smooth, in half of the bytes."""
    picture = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    picture = picture.quantize(256, method=Image.Quantize.MAXCOVERAGE, kmeans=4)
    packed = io.BytesIO()
    picture.save(packed, "png", optimize=True)
    return base64.b64encode(packed.getvalue()).decode()


for name in sys.argv[1:]:
    source = Path(__file__).parent / f"{name}.py"
    notebook = jupytext.read(source)
    NotebookClient(notebook, timeout=None, resources={"metadata": {"path": str(source.parent)}}).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times of day, which would change with every run
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                output.data["image/png"] = smaller(output.data["image/png"])
    jupytext.write(notebook, source.with_suffix(".ipynb"))
