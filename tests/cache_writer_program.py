"""Fill the fake cache at the folder named on the command line: a real writer process, for tests that kill it."""

import sys
from pathlib import Path

from cache_fakes import SLOTS, manifest_of, write_scene

from cache.writing import open_for_writing

if __name__ == "__main__":
    writer = open_for_writing(Path(sys.argv[1]), manifest_of(), SLOTS)
    print("ready", flush=True)
    for slot in SLOTS:
        if slot.name not in writer.committed():
            write_scene(writer, slot)
