"""A cache over the devices of two processes gives the tokens of one process, and of no cache at all."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import pytest
import sharded_model
from jax.sharding import AxisType

NUM_TOKENS = 8
TIMEOUT_SECONDS = 240


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run_processes(num_processes, num_devices):
    """What each of them printed. All are gone when this returns, whatever happened."""
    flags = f"--xla_force_host_platform_device_count={num_devices // num_processes}"
    port = str(free_port())
    processes = [
        subprocess.Popen(
            [sys.executable, Path(sharded_model.__file__), port, str(num_processes), str(i)],
            env={**os.environ, "XLA_FLAGS": flags},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(num_processes)
    ]
    try:
        outputs = [process.communicate(timeout=TIMEOUT_SECONDS) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    for process, (_, errors) in zip(processes, outputs, strict=True):
        assert process.returncode == 0, errors
    # Gloo greets its peers on the lines before.
    return [json.loads(output.splitlines()[-1]) for output, _ in outputs]


@pytest.fixture(scope="module")
def two_processes():
    return run_processes(2, num_devices=4)


@pytest.fixture(scope="module")
def expected():
    return sharded_model.decode_dense(NUM_TOKENS)


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (2, 4)], ids=str)
def test_one_process_decodes_the_tokens_of_the_dense_model(shape, kind, expected):
    devices = jax.devices()[: shape[0] * shape[1]]
    mesh = jax.make_mesh(shape, ("dp", "tp"), axis_types=(kind,) * 2, devices=devices)
    assert sharded_model.decode_paged(mesh, NUM_TOKENS) == expected


def test_answers_differ_so_that_a_mix_up_shows(expected):
    assert len({tuple(answer) for answer in expected}) == len(expected)
    assert all(len(set(answer)) >= 3 for answer in expected)


def test_two_processes_decode_the_same_tokens(two_processes, expected):
    for seen in two_processes:
        assert seen["devices"] == [2, 4]
        assert seen["tokens"] == expected


def test_an_error_shows_in_one_process_only(two_processes):
    good, bad = (seen["bad_slot"] for seen in two_processes)
    assert good["outcome"] == "no error"
    assert "[write_kv] slot 99 at position 0 is out of range [0, 4)" in bad["outcome"]
    assert good["pools_are_lost"]  # donated, as always
    assert bad["pools_are_lost"]
