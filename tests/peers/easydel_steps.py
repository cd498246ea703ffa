"""What EasyDeL's scheduler does with a few requests that share prefixes and do not all fit, as JSON.

    python tests/peers/easydel_steps.py ROOT

ROOT is a folder with the `easydel` package. A process of its own, since modules stay loaded.
"""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "python"))

from bench_scheduler import load_easydel

NUM_PAGES, PAGE_SIZE = 24, 4
PROMPTS = [[*range(30), *range(100 * i, 100 * i + 9)] for i in range(1, 5)] + [
    list(range(26)) for _ in range(3)
]
PARAMS = SimpleNamespace(
    prompt_logprobs=None,
    max_tokens=12,
    extra_args=None,
    guided_decoding=None,
    ignore_eos=True,
    stop_token_ids=(),
)


def main() -> None:
    easydel = load_easydel(Path(sys.argv[1]))
    # The names that the scheduler has imported, from wherever.
    home = sys.modules[easydel.scheduler.CacheManager.__module__.rpartition(".")[0] + ".interface"]
    spec = home.FullAttentionSpec(PAGE_SIZE, 2, 8, "bfloat16", use_mla=False)
    groups = easydel.scheduler.CacheGroupsConfig(NUM_PAGES, [home.CacheGroupSpec(spec)])
    config = easydel.config.Config(
        scheduler_config=easydel.config.SchedulerConfig(
            max_num_seqs=4,
            max_num_batched_tokens=32,
            max_model_len=64,
            chunked_prefill_enabled=True,
        ),
        cache_config=easydel.config.CacheConfig(NUM_PAGES, PAGE_SIZE, True),
    )
    scheduler = easydel.scheduler.Scheduler(config, groups)
    requests = {}
    for i, prompt in enumerate(PROMPTS):
        requests[f"{i}"] = easydel.request.EngineRequest(f"{i}", prompt, PARAMS, None)
        scheduler.add_request(requests[f"{i}"])
    steps = []
    while scheduler.has_requests() and len(steps) < 1000:
        step = scheduler.schedule()
        names = list(step.num_scheduled_tokens)
        manager = scheduler.kv_cache_manager
        steps.append(
            {
                "tokens": dict(step.num_scheduled_tokens),
                "pages": {name: manager.get_page_ids(name)[0] for name in names},
                "usage": round(manager.usage, 6),
            }
        )
        said = [
            [7] if requests[name].num_computed_tokens == requests[name].num_tokens else []
            for name in names
        ]
        scheduler.update_from_output(
            step,
            easydel.outputs.ModelRunnerOutput(
                req_ids=names,
                req_id_to_index={name: i for i, name in enumerate(names)},
                sampled_token_ids=said,
                spec_token_ids=None,
                logprobs=None,
                prompt_logprobs_dict={},
            ),
        )
    held_by = type(scheduler.kv_cache_manager).__module__
    print(json.dumps({"manager": held_by, "steps": steps}))


if __name__ == "__main__":
    main()
