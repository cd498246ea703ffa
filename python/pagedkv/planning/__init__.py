"""What fits in the memory of a device: from a model's config to groups, pages and requests."""

from pagedkv.planning.groups import PlannedGroup as PlannedGroup
from pagedkv.planning.plan import plan_memory as plan_memory
from pagedkv.planning.report import MemoryPlan as MemoryPlan
from pagedkv.planning.suggestion import DoesNotFitError as DoesNotFitError
from pagedkv.planning.suggestion import Suggestion as Suggestion
from pagedkv.planning.waste import Waste as Waste
