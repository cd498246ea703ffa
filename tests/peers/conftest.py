"""What the tests against other projects share."""

import pytest
from easydel_core import find_wheel, load


@pytest.fixture(scope="session")
def easydel():
    """EasyDeL's own modules."""
    return load(find_wheel())
