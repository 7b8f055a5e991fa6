"""What the launcher of Dataflow's Flex Templates runs: it wants the path of a script."""

import sys

from beam_pipeline.run import main

if __name__ == "__main__":
    sys.exit(main())
