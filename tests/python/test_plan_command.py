"""`pagedkv plan`: what it prints, and how it refuses."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from pagedkv import plan_memory
from pagedkv.commands.app import app
from pagedkv.planning.model import MAX_LAYERS
from test_planning import DEEPSEEK_V3, GEMMA_3_27B, LLAMA_3_1_70B, QWEN3_NEXT_80B
from typer.testing import CliRunner


@pytest.fixture
def write(tmp_path):
    """Writes a config, or any text, to a file."""

    def write(config, name="config.json"):
        path = tmp_path / name
        path.write_text(config if isinstance(config, str) else json.dumps(config))
        return str(path)

    return write


def run(*arguments):
    return CliRunner(env={"COLUMNS": "80"}).invoke(app, ["plan", *map(str, arguments)])


def refusal(*arguments):
    """The one line that a refused command prints."""
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("pagedkv plan: ")
    return lines[0].removeprefix("pagedkv plan: ")


def test_the_installed_command_prints_a_plan(write):
    command = "import sys; from pagedkv.cli import main; main()"
    arguments = ["plan", write(LLAMA_3_1_70B), "--memory", "80GiB", "--mesh", "tp=8", "--json"]
    done = subprocess.run(
        [sys.executable, "-c", command, *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert json.loads(done.stdout) == plan_memory(LLAMA_3_1_70B, "80GiB", mesh="tp=8").to_dict()


def test_options_are_those_of_plan_memory(write):
    options = {
        "mesh": "tp=2,dp=3",
        "page_size": 32,
        "dtype": "int8",
        "max_model_len": "4k",
        "weights": "54GB",
        "hbm_utilization": 0.85,
        "layout": "FUSED_PACKED",
        "scales": "page",
        "max_num_batched_tokens": "2k",
        "max_encoder_tokens": "7",
    }
    arguments = [
        text for name, value in options.items() for text in (f"--{name.replace('_', '-')}", value)
    ]
    result = run(write(GEMMA_3_27B), "--memory", "80GB", *arguments, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == plan_memory(GEMMA_3_27B, "80GB", **options).to_dict()


def test_reads_the_config_of_a_folder(write, tmp_path):
    write(LLAMA_3_1_70B)
    assert run(tmp_path, "--memory", "80GiB").exit_code == 0
    assert plan_memory(tmp_path, "80GiB") == plan_memory(LLAMA_3_1_70B, "80GiB")


@pytest.mark.parametrize("mesh", ["tp=1", "tp=2,dp=2"])
@pytest.mark.parametrize(
    "config",
    [LLAMA_3_1_70B, GEMMA_3_27B, DEEPSEEK_V3, QWEN3_NEXT_80B],
    ids=lambda c: c["model_type"],
)
def test_prints_tables_of_at_most_80_columns(write, config, mesh):
    result = run(write(config), "--memory", "80GiB", "--mesh", mesh, "--weights", "9GiB")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert max(len(line.rstrip()) for line in lines) <= 80
    assert config["model_type"] in lines[0]
    plan = plan_memory(config, "80GiB", mesh=mesh, weights="9GiB")
    for number in (plan.num_tokens, plan.num_pages_per_rank, plan.max_concurrent_requests):
        assert f"{number:,}" in result.stdout
    for pages in plan.pages_per_request:
        assert f"{pages:,}" in result.stdout
    has_ratio = plan.single_type_ratio is not None
    assert ("With full attention alone" in result.stdout) == has_ratio
    (bar,) = [line for line in lines if "▓▓" in line]
    assert len(bar.strip()) == 79
    weights = 9 / 80 / plan.mesh.tp * 79
    assert abs(bar.count("█") - weights) <= 1


def test_help_names_every_option():
    result = run("--help")
    assert result.exit_code == 0
    for option in ("--memory", "--mesh", "--page-size", "--dtype", "--max-model-len", "--weights"):
        assert option in result.stdout
    assert "80GiB" in result.stdout


def test_says_what_fits(write):
    config = write(LLAMA_3_1_70B)
    line = refusal(config, "--memory", "80GiB", "--weights", "141GB", "--mesh", "tp=2")
    assert line == (
        "a request of 131072 tokens and the null page need 20.00 GiB of each device, and pages may "
        "take 14.34 GiB; try --max-model-len 93968 --page-size 16, or --memory 87717MiB (85.66 GiB)"
    )
    same = [config, "--weights", "141GB", "--mesh", "tp=2", "--memory"]
    assert run(*same, "80GiB", "--max-model-len", "93968", "--page-size", "16").exit_code == 0
    assert run(*same, "87717MiB").exit_code == 0
    assert run(*same, "80GiB", "--max-model-len", "93985").exit_code == 2


def test_says_what_memory_is_needed_where_no_length_fits(write):
    line = refusal(write(LLAMA_3_1_70B), "--memory", "16GiB", "--weights", "141GB")
    assert line.endswith("pages may take 0 B; try --memory 175434MiB (171.32 GiB)")


def test_suggests_another_page_size_where_one_page_is_too_much(write):
    # 1 MiB a token of 4 layers; pages of 64 tokens leave room for one page, the null page.
    config = {"num_hidden_layers": 4, "num_key_value_heads": 256, "head_dim": 256}
    arguments = [write(config), "--memory", "100MiB", "--max-model-len"]
    line = refusal(*arguments, "200", "--page-size", "64")
    assert "try --max-model-len 64 --page-size 32, or" in line
    line = refusal(*arguments, "70", "--page-size", "64")
    assert "try --max-model-len 70 --page-size 16, or" in line
    assert run(*arguments, "70", "--page-size", "16").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--memory", "80G"], "memory '80G' is no size"),
        (["--memory", "-1GiB"], "memory must be >= 0, got -1GiB"),
        (["--memory", "1GiB", "--weights", "-5"], "weights must be >= 0, got -5"),
        (["--memory", "1GiB", "--mesh", "tp=8;dp=2"], "mesh 'tp=8;dp=2' is not such as"),
        (["--memory", "1GiB", "--mesh", "pp=2"], "mesh axis 'pp' is unknown, must be tp or dp"),
        (["--memory", "1GiB", "--mesh", "tp=2,tp=2"], "is not such as 'tp=8,dp=2'"),
        (["--memory", "1GiB", "--mesh", "dp=0"], "mesh axis dp must be >= 1, got 0"),
        (["--memory", "1GiB", "--mesh", "tp=3"], "8 kv heads of layer.0 cannot be cut into tp=3"),
        (["--memory", "1GiB", "--page-size", "0"], "page_size must be in [1, 2147483647], got 0"),
        (["--memory", "1GiB", "--page-size", "many"], "page_size 'many' is no int"),
        (["--memory", "1GiB", "--dtype", "bf17"], "unknown dtype 'bf17'"),
        (["--memory", "1GiB", "--max-model-len", "0"], "max_model_len must be in [1,"),
        (["--memory", "1GiB", "--max-model-len", "9999m"], "max_model_len must be in [1,"),
        (["--memory", "1GiB", "--hbm-utilization", "1.5"], "must be in (0, 1], got 1.5"),
        (["--memory", "1GiB", "--hbm-utilization", "nan"], "must be in (0, 1], got nan"),
        (["--memory", "1GiB", "--layout", "NHDX"], "layout must be one of NHD, HND,"),
        (["--memory", "1GiB", "--scales", "token"], "bfloat16 has no scales"),
        (["--memory", "1GiB", "--dtype", "fp8", "--scales", "row"], "scales must be one of token"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_refuses_arguments_in_one_line(write, arguments, message):
    assert message in refusal(write(LLAMA_3_1_70B), *arguments)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ('{\n  "a": 1,\n  "b": }', "line 3, column 8"),
        ("[1, 2]", "must hold a JSON object, got '[1, 2]'"),
        ("[" * 100_000, "nested too deep"),
        ("", "line 1, column 1"),
        ({}, "the config must have num_hidden_layers, and has not"),
        ({"num_hidden_layers": 2}, "must have num_key_value_heads"),
        ({"num_hidden_layers": 2, "num_attention_heads": 4}, "must have head_dim"),
        ({"num_attention_heads": 4, "hidden_size": 64}, "must have num_hidden_layers"),
        (LLAMA_3_1_70B | {"max_position_embeddings": None}, "give max_model_len"),
        (LLAMA_3_1_70B | {"num_hidden_layers": -1}, "num_hidden_layers must be >= 1, got -1"),
        (LLAMA_3_1_70B | {"num_hidden_layers": 10**9}, f"at most {MAX_LAYERS}"),
        (LLAMA_3_1_70B | {"num_key_value_heads": "8"}, "num_key_value_heads must be an int"),
        (LLAMA_3_1_70B | {"num_key_value_heads": 10**15}, "num_kv_heads must be an int32"),
        (LLAMA_3_1_70B | {"layer_types": ["new\nkind"] * 80}, "layer type 'new\\nkind' of layer.0"),
        (LLAMA_3_1_70B | {"head_dim": 1 << 30, "num_key_value_heads": 1 << 30}, "larger than 2^63"),
    ],
    ids=lambda value: str(value)[:40] if not isinstance(value, str) else value[:20],
)
def test_refuses_configs_in_one_line(write, config, message):
    assert message in refusal(write(config), "--memory", "1GiB")


def test_refuses_files_that_cannot_be_read(tmp_path):
    assert refusal(tmp_path / "none.json", "--memory", "1GiB") == (
        f"{tmp_path / 'none.json'}: No such file or directory"
    )
    assert refusal(tmp_path, "--memory", "1GiB").endswith("config.json: No such file or directory")
    binary = tmp_path / "model.bin"
    binary.write_bytes(b"\xff\xfe\x00")
    assert "it is not UTF-8" in refusal(binary, "--memory", "1GiB")


def test_a_missing_option_is_a_usage_error(write):
    result = run(write(LLAMA_3_1_70B))
    assert result.exit_code == 2
    assert "--memory" in result.stderr


def test_layouts_that_cannot_hold_a_model_are_refused(write, tmp_path):
    config = {"num_hidden_layers": 2, "num_key_value_heads": 4, "head_dim": 192, "v_head_dim": 128}
    path = write(config)
    arguments = [path, "--memory", "1GiB", "--max-model-len", "1k", "--layout", "FUSED"]
    assert "keys and values of one size, got 192 and 128" in refusal(*arguments)
    assert Path(path).parent == tmp_path
