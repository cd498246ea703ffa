"""A short run of easydel_lockstep.py: each layout of groups, and random configurations."""

import random

import pytest
from easydel_lockstep import run_scenario
from lockstep_config import LAYOUTS, LAYOUTS_WITHOUT_CACHING, random_config
from lockstep_pair import Mismatch, Pair


def run_layout(easydel, layout, enable_caching):
    config = random_config(random.Random(layout), layout, enable_caching)
    assert run_scenario(easydel, 0, 0, 500, config).num_ops >= 500


@pytest.mark.parametrize("layout", LAYOUTS)
def test_agrees_with_easydel(easydel, layout):
    run_layout(easydel, layout, enable_caching=True)


@pytest.mark.parametrize("layout", LAYOUTS_WITHOUT_CACHING)
def test_agrees_with_easydel_without_caching(easydel, layout):
    run_layout(easydel, layout, enable_caching=False)


@pytest.mark.parametrize("scenario", range(20))
def test_agrees_with_easydel_on_random_groups(easydel, scenario):
    assert run_scenario(easydel, 7, scenario, 500).num_ops >= 500


def test_names_what_differs(easydel, monkeypatch):
    monkeypatch.setattr(Pair, "free_page_hashes", lambda self, request: 1 / 0)
    with pytest.raises(Mismatch, match="again: --seed 0 --scenario 3 --ops-per-scenario 50"):
        run_scenario(easydel, 0, 3, 50)


def test_sees_a_page_that_differs(easydel):
    pair = Pair(easydel, random_config(random.Random(0), "F", True))
    request = easydel.request.EngineRequest("a", [1], None, None)
    pair.ours.get_computed_pages(request)
    assert pair.ours.allocate_slots(request, 1) is not None
    with pytest.raises(Mismatch, match="free list"):
        pair.compare()
