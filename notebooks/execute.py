"""Run a notebook's text pair and save it with its outputs: ``python notebooks/execute.py bias``."""

import sys
from pathlib import Path

import jupytext
from nbclient import NotebookClient

for name in sys.argv[1:]:
    source = Path(__file__).parent / f"{name}.py"
    notebook = jupytext.read(source)
    NotebookClient(notebook, timeout=None, resources={"metadata": {"path": str(source.parent)}}).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times of day, which would change with every run
    jupytext.write(notebook, source.with_suffix(".ipynb"))
