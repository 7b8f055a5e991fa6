"""The script that the launcher of Dataflow's Flex Templates runs; it needs a path."""

import sys

from beam_pipeline.run import main

if __name__ == "__main__":
    sys.exit(main())
