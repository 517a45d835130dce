"""Every command on something tiny, as a user runs it."""

import ast
import json
import os
import signal
import statistics
import time
from pathlib import Path

import pytest

import sparsejax_bench
from helpers.processes import run_python, start_python, tail
from sparsejax._cpu_info import CpuInfo, cpu_info
from sparsejax.cli import main
from sparsejax_bench import _cli, attention, blocks, crossover, layers, overhead, peak, scaling, settings, small
from sparsejax_bench.cases._shapes import Shape
from sparsejax_bench.harness import _machine

TINY = "set,name,kind,batch,in_features,out_features\nuntuned,tiny,linear,8,24,16\nmlp,small,linear,16,16,24\n"


@pytest.fixture
def shapes(tmp_path):
    file = tmp_path / "tiny.csv"
    file.write_text(TINY)
    return str(file)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Shorter samples and probes: nobody reads these times."""
    from sparsejax_bench.harness import _peak, _timing

    measure = _peak.measure
    monkeypatch.setattr(_timing, "PAUSE", 0.0)
    monkeypatch.setattr(_timing, "SHORTEST_SAMPLE", 1e-5)
    monkeypatch.setattr(_peak, "measure", lambda threads, seconds=0.001: measure(threads, 0.001))
    monkeypatch.setattr(peak, "SECONDS", 0.001)


def run(capsys, *words):
    """The JSON of a command that ran in this process."""
    assert _cli.run_pinned([*words, "--json", "-"]) == 0
    return json.loads(capsys.readouterr().out)


def test_attention(capsys, monkeypatch):
    monkeypatch.setattr(attention, "SHAPES", ((2, 9, 2, 4),))
    found = run(capsys, "attention")
    assert [row["measure"] for row in found["rows"]] == ["forward", "step"]
    for row in found["rows"]:
        assert row["against"].keys() | found["absent"].keys() == {"xla", "torch"}
        assert row["of_peak"] > 0 and len(row["rounds"]["sparsejax"]) == 7
    assert found["summary"][0]["must"] == 1.5 and found["summary"][0]["measured"] > 0


def test_small(capsys, monkeypatch):
    monkeypatch.setattr(small, "SHAPES", ((40, 16), (24, 40)))
    found = run(capsys, "small", "--sparsity", "0.5")
    assert [(row["batch"], row["in_features"]) for row in found["rows"]] == [
        (batch, inputs) for inputs in (40, 24) for batch in small.BATCHES
    ]
    for row in found["rows"]:
        present = {name for name, status in row["status"].items() if status == "ok"} - {"sparsejax"}
        assert row["against"].keys() == present and row["bandwidth"] > 0
        assert row["status"].keys() == {"sparsejax", "mkl", "torch_csr", "torch"}
        assert not any(status.startswith(("wrong", "failed")) for status in row["status"].values())
    assert [row["must"] for row in found["summary"]] == [1.05, 1, 75]


def test_blocks(capsys, monkeypatch):
    monkeypatch.setattr(blocks, "SHAPES", ((40, 16, 24),))
    found = run(capsys, "blocks", "--sparsity", "0.5")
    assert [(row["dtype"], row["measure"]) for row in found["rows"]] == [
        (dtype, measure) for dtype in ("float32", "bfloat16") for measure in ("forward", "step")
    ]
    assert all(set(row["against"]) == set(blocks.PATTERNS) for row in found["rows"])
    assert found["summary"][0]["must"] == 1.3 and found["summary"][0]["measured"] > 0


def test_layers(capsys, shapes):
    pytest.importorskip("torch")
    found = run(capsys, "layers", "--shapes", shapes, "--sparsity", "0.9", "--peers", "xla", "torch", "scipy")
    measured = {row["measure"]: row["measured"] for row in found["summary"]}
    assert measured["the slowest layer alone at 90 % against the fastest dense"] > 0
    assert found["command"] == "layers" and found["machine"]["threads"] >= 1
    assert found["options"]["sparsity"] == [0.9] and found["machine"]["versions"]["jax"]
    assert [row["name"] for row in found["rows"]] == ["tiny", "small"]
    for row in found["rows"]:
        assert set(row["status"].values()) == {"ok"}
        assert row["times"]["step"].keys() == {"sparsejax", "alone", "xla", "torch", "scipy"}
        ours = row["times"]["step"]["sparsejax"]
        assert len(ours["rounds"]) == 7 and ours["ratio"]["median"] == 1
        assert row["limits"].keys() == set(layers.PRODUCTS)
        assert all(0 < limit["peak_fraction"] < limit["limit_fraction"] + 1e-9 for limit in row["limits"].values())
    verdicts = {row["measure"]: row for row in found["summary"]}
    dense = verdicts["forward + both gradients against the fastest dense at 90 %, geometric mean"]
    expected = min(
        (found["rows"][1]["times"]["step"][name] for name in ("xla", "torch")), key=lambda timed: timed["seconds"]
    )
    assert dense["measured"] == pytest.approx(expected["ratio"]["median"]) and dense["over"] == "1 cases"
    assert verdicts["untuned shapes, forward against XLA dense, slowest layer"]["over"] == "tiny at 90 %; 1 cases"
    assert verdicts["forward against MKL sparse, linear, geometric mean"]["verdict"] == "not measured"


def test_layers_prints_tables_and_writes_json(capsys, shapes, tmp_path):
    target = tmp_path / "out.json"
    Path(shapes).write_text("".join(TINY.splitlines(keepends=True)[:2]))
    words = ["layers", "--shapes", shapes, "--sparsity", "0.9", "0.5", "--peers", "xla", "--json", str(target)]
    assert _cli.run_pinned(words) == 0
    out, err = capsys.readouterr()
    assert "geometric mean at 50 %" in out and "Forward + both gradients" in out and "GFLOP/s" in out
    assert "[2/2] tiny 50 %: step" in err
    assert len(json.loads(target.read_text())["rows"]) == 2


def test_layers_in_bfloat16(capsys, shapes):
    pytest.importorskip("torch")
    words = ["layers", "--shapes", shapes, "--sparsity", "0.9", "--dtype", "bfloat16"]
    found = run(capsys, *words, "--peers", "torch_bfloat16", "torch_autocast")
    ours = {"sparsejax", "alone", "sparsejax_bfloat16", "alone_bfloat16"}
    for row in found["rows"]:
        assert row["times"]["step"].keys() == {*ours, "torch_bfloat16", "torch_autocast"}, row["status"]
    times = found["rows"][1]["times"]  # the first is of a set that no target is about
    by_measure = {(e["measure"], e["must"], e["aim"]): e for e in found["summary"]}
    for measure, name, bounds in (
        ("forward", "ours in bfloat16 against ours in float32 at 90 %, forward, geometric mean", (1.5, 2)),
        ("step", "the same at 90 %, forward + both gradients", (1.35, 1.8)),
    ):
        wide, half = (times[measure][f"sparsejax{suffix}"]["rounds"] for suffix in ("", "_bfloat16"))
        expected = statistics.median(a / b for a, b in zip(wide, half, strict=True))
        assert by_measure[name, *bounds]["measured"] == pytest.approx(expected)
    dense = "ours in bfloat16 against PyTorch bfloat16 dense at 90 %, forward + both gradients, geometric mean"
    assert by_measure[dense, 3, 5]["over"] == "1 cases; against PyTorch in float32 -"
    by_name = times["step"]
    ratios = [
        statistics.median(
            a / b for a, b in zip(by_name[n]["rounds"], by_name["sparsejax_bfloat16"]["rounds"], strict=True)
        )
        for n in ("torch_bfloat16", "torch_autocast")
    ]
    assert by_measure[dense, 3, 5]["measured"] == pytest.approx(min(ratios))
    assert _cli.run_pinned([*words, "--peers", "scipy"]) == 0
    assert "how many times faster than ours in float32" in capsys.readouterr().out


@pytest.mark.parametrize(("words", "amx"), [([], None), (["--no-amx"], "AVX512_CORE_BF16")])
def test_amx_is_switched_off_before_anything_is_imported(monkeypatch, words, amx):
    seen = {}

    class Child:
        def __init__(self, command, env):
            seen.update(env)

        __enter__, __exit__, wait = (lambda self: self), (lambda self, *_: None), (lambda self: 0)

    for name in (*_machine.WITHOUT_AMX, _machine.NOTHING_SET):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(_cli.subprocess, "Popen", Child)
    assert _cli.main(["model", *words, *(["--nothing-set"] if amx else [])]) == 0
    assert seen.get("ONEDNN_MAX_CPU_ISA") == amx
    assert (_machine.NOTHING_SET in seen) == bool(amx)


def test_the_machine_says_whether_pytorch_may_use_amx(monkeypatch, tmp_path):
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    info = tmp_path / "cpuinfo"
    monkeypatch.setattr(_machine, "Path", lambda _: info)
    info.write_text("flags\t\t: fpu avx512f avx512_bf16\n")
    assert _machine.amx() == "none"
    info.write_text("flags\t\t: fpu amx_bf16 avx512_fp16\n")
    assert _machine.amx() == "used by PyTorch"
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16")
    assert _machine.amx() == "PyTorch limited to AVX512_CORE_BF16"


def test_settings_compares_three_processes(monkeypatch, capsys):
    started = []
    seconds = {settings.NOTHING: 4e-3, settings.LATE: 2e-3, settings.FIRST: 1e-3}

    class Worker:
        def ask(self, request, **arguments):
            if request == "prepare":
                self.setting, self.case = arguments["setting"], arguments["case"]
                return "done"
            return 0.5

        def sampler(self, request):
            return lambda calls: calls * seconds[self.setting]

        def close(self):
            self.setting = None

    def start(service, threads, **variables):
        started.append((Worker(), variables))
        return started[-1][0]

    monkeypatch.setattr(settings._worker, "start", start)
    found = run(capsys, "settings", "--model", "vit-small")
    assert [entry["measured"] for entry in found["summary"]] == [pytest.approx(0.25), pytest.approx(0.5)]
    assert "best: sx.configure() first" in found["summary"][0]["over"]
    assert all(worker.setting is None and worker.case["network"] == "vit-small" for worker, _ in started)
    assert len({variables["JAX_COMPILATION_CACHE_DIR"] for _, variables in started}) == 1


@pytest.mark.slow
def test_settings_of_a_whole_network(capsys):
    found = run(capsys, "settings", "--model", "transformer-768", "--batch", "1")
    assert all(len(rounds) == 7 for rounds in found["seconds"].values()) and len(found["seconds"]) == 3


def test_crossover(capsys, shapes):
    found = run(capsys, "crossover", "--shapes", shapes, "--peers", "xla", "--sparsity", "0.5", "0.9")
    assert [row["shape"]["name"] for row in found["crossovers"]] == ["tiny", "small"]
    for row in found["crossovers"]:
        assert 0.5 <= row["sparsity"] <= 0.9 and {"0.5", "0.9"} & row["ratios"].keys()
    assert found["summary"][0]["over"].startswith("1 layers")


@pytest.mark.parametrize("even", [0.45, 0.75, 0.9])
@pytest.mark.parametrize("fixed", [0.0, 0.05])
def test_the_search_finds_the_break_even_sparsity(even, fixed):
    found, beyond, ratios = crossover.search(lambda s: (fixed + 1 - even) / (fixed + 1 - s), 0.3, 0.95, 4)
    assert found == pytest.approx(even, abs=2e-3) and beyond == "" and len(ratios) <= 6


def test_the_search_says_where_it_ended():
    assert crossover.search(lambda s: 0.5, 0.3, 0.95, 4)[:2] == (0.95, "above")
    assert crossover.search(lambda s: 2.0, 0.3, 0.95, 4)[:2] == (0.3, "below")
    assert crossover.search(lambda s: None, 0.3, 0.95, 4) == (None, "", {})


def test_overhead(capsys):
    found = run(capsys, "overhead")
    assert [(row["layer"], row["measure"]) for row in found["rows"]] == [
        (shape.name, measure) for shape in overhead.TINY for measure in ("forward", "step")
    ]
    assert found["summary"][0]["unit"] == "us"


def test_peak_of_instruction_sets(capsys, monkeypatch):
    isas = (cpu_info().supported_isas[0], "baseline")  # all would take as many processes
    monkeypatch.setattr(peak, "cpu_info", lambda: CpuInfo(isas[0], isas, 1))
    found = run(capsys, "peak")
    assert [entry["isa"] for entry in found["peaks"]] == list(dict.fromkeys(isas))
    assert all(rate > 0 for entry in found["peaks"] for rate in (entry["flops"], *entry["read"].values()))


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one processor")
def test_scaling(capsys, shapes):
    found = run(capsys, "scaling", "--shapes", shapes, "--sparsity", "0.5", "--threads", "2")
    assert [row["same_bits"] for row in found["rows"]] == [True, True]
    assert found["rows"][0]["speedup"].keys() == set(scaling.PRODUCTS)
    assert found["summary"][0]["measured"] is None  # no layer is long enough


def test_scaling_tells_other_bits_and_counts_long_layers_only():
    class Fake:
        def __init__(self, digest, seconds):
            self.digest, self.seconds = digest, seconds

        def ask(self, request, **arguments):
            assert request == "prepare"
            return {product: self.digest for product in scaling.PRODUCTS}

        def sampler(self, request, product):
            return lambda calls: calls * self.seconds

    shape = Shape("t", "t", "linear", 2, 3, 4)
    long = scaling._row(Fake("a", 4e-3), Fake("b", 2e-3), shape, 0.9, 7)
    short = scaling._row(Fake("a", 4e-4), Fake("a", 4e-4), shape, 0.9, 7)
    assert (long["same_bits"], short["same_bits"]) == (False, True)
    report = scaling._report([long, short], 2)
    assert report.results["summary"][0].measured == pytest.approx(2.0) and "NO" in report.text


def test_a_layer_in_a_worker_is_checked_and_digested():
    shape = {"set": "t", "name": "t", "kind": "linear", "batch": 4, "in_features": 8, "out_features": 8}
    timers = [scaling.LayerTimer() for _ in range(2)]
    first, second = (timer.prepare(shape, 0.5) for timer in timers)
    assert first == second and len(set(first.values())) == len(scaling.PRODUCTS)
    assert timers[0].sample("step", 2) > 0


def test_the_front_runs_a_pinned_child(shapes):
    code = "import sys; from sparsejax.cli import main; sys.exit(main())"
    words = ["bench", "layers", "--shapes", shapes, "--sparsity", "0.9", "--peers", "xla", "--json", "-"]
    done = run_python("-c", code, *words, timeout=120)
    assert done.returncode == 0, tail(done)
    found = json.loads(done.stdout)
    assert found["machine"]["threads"] == 1 and len(found["machine"]["affinity"]) == 1
    assert "[2/2] small" in done.stderr


def test_termination_ends_the_child_too():
    code = "import sys; from sparsejax.cli import main; sys.exit(main())"
    with start_python("-c", code, "bench", "peak", "--rounds", "100000") as front:
        children = Path(f"/proc/{front.pid}/task/{front.pid}/children")
        while not (pids := children.read_text().split()):
            assert front.poll() is None
            time.sleep(0.02)
        time.sleep(0.5)  # the handler is set right after the start of the child
        front.terminate()
        assert front.wait(60) == 128 + signal.SIGTERM
    assert not Path(f"/proc/{pids[0]}").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["layers", "--sparsity", "1.0"], "sparsity has value 1.0"),
        (["layers", "--threads", "0"], "argument --threads: value 0"),
        (["fly"], "invalid choice"),
        (["peak", "--shapes", "mlp"], "unrecognized arguments"),
        ([], "required"),
    ],
)
def test_errors_of_the_parser_are_one_line(capsys, words, message):
    with pytest.raises(SystemExit) as stop:
        main(["bench", *words])
    err = capsys.readouterr().err
    assert stop.value.code == 2 and message in err and len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["layers", "--shapes", "nowhere"], "error: bench: --shapes has value 'nowhere'"),
        (["layers", "--peers", "caffe"], "error: bench: --peers has value 'caffe'"),
        (["overhead", "--rounds", "3"], "error: bench: --rounds has value 3; expected at least 7"),
        (["crossover", "--sparsity", "0.5"], "error: crossover: --sparsity has one value"),
        (["scaling", "--threads", "1"], "error: scaling: --threads has value 1"),
    ],
)
def test_errors_of_the_user_are_one_line(capsys, words, message):
    assert _cli.run_pinned(words) == 2
    assert capsys.readouterr().err.startswith(message)


@pytest.mark.parametrize("command", [[], *([name] for name in _cli.COMMANDS)])
def test_help(capsys, command):
    with pytest.raises(SystemExit) as stop:
        main(["bench", *command, "--help"])
    assert stop.value.code == 0 and "sparsejax bench" in capsys.readouterr().out


def test_nothing_heavy_is_imported_before_threads_are_pinned():
    code = (
        "import sys, sparsejax_bench._cli, sparsejax_bench.harness._machine as m; m.pinned_environment(1);"
        "sparsejax_bench._cli.parser(); assert not {'jax', 'numpy', 'torch'} & sys.modules.keys()"
    )
    done = run_python("-c", code, timeout=60)
    assert done.returncode == 0, tail(done)


def test_modules_and_functions_stay_short():
    for path in Path(sparsejax_bench.__file__).parent.rglob("*.py"):
        text = path.read_text()
        assert len(text.splitlines()) <= 400, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 60, f"{path}: {node.name}"
