"""What each layer of a model keeps in the cache, from the model's config."""

from pagedkv.specs.from_config import (
    create_kv_cache_specs_from_config as create_kv_cache_specs_from_config,
)
from pagedkv.specs.page_budget import RuntimePageBudgetEstimate as RuntimePageBudgetEstimate
from pagedkv.specs.page_budget import estimate_runtime_page_budget as estimate_runtime_page_budget
