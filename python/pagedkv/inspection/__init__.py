"""Pictures of a pool: what `CacheManager.inspect` gives."""

from pagedkv.inspection.picture import PoolPicture as PoolPicture
from pagedkv.inspection.sharing import RequestPages as RequestPages
from pagedkv.inspection.sharing import SharedPages as SharedPages
from pagedkv.inspection.states import PageState as PageState
