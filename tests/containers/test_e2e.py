"""The end-to-end tests of who may do what and what both doors answer, on the composed system.

Left out are tests that break their stack by devstack's means, tests of reflection, which is off in production,
and those of bad input and of the page, whose answers do not depend on what the edge runs in.
"""

from tests.e2e.test_access import *  # noqa: F403  all of its tests
from tests.e2e.test_health import *  # noqa: F403  all of its tests
from tests.e2e.test_once import *  # noqa: F403  all of its tests
from tests.e2e.test_parity import *  # noqa: F403  all of its tests
