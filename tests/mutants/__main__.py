"""Apply each deliberate change to a copy of the tree, and see that a test turns red.

python -m tests.mutants               # all; exit 1 if one survives
python -m tests.mutants --list
python -m tests.mutants --only NAME   # those with NAME in their name; may be repeated
"""

import sys

from tests.mutants.runner import main

sys.exit(main())
