"""The end-to-end tests that need nothing but an edge and a database, against the composed system.

The others break the stack they run on in ways that are devstack's, or ask for reflection, which is off in production.
"""

from tests.e2e.test_access import *  # noqa: F403
from tests.e2e.test_bad_input import *  # noqa: F403
from tests.e2e.test_health import *  # noqa: F403
from tests.e2e.test_once import *  # noqa: F403
from tests.e2e.test_openapi import *  # noqa: F403
from tests.e2e.test_parity import *  # noqa: F403
