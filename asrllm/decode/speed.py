"""What it took to decode: seconds of the clock and of the processor beside those of the audio, and what was counted.

It knows neither searches nor files.
"""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from asrllm.hypothesis import NBest


@contextmanager
def clock() -> Iterator[dict[str, float]]:
    """A dict that holds, once the block has ended, how long it took."""
    took: dict[str, float] = {}
    begin, used = time.perf_counter(), time.process_time()
    yield took
    took |= {"seconds_wall": time.perf_counter() - begin, "seconds_processor": time.process_time() - used}


def speed(results: Sequence[NBest], took: dict[str, float], device: torch.device) -> dict[str, object]:
    """The figures of a decoding that `took` so long on `device`, with the sums of the counts of its results."""
    return {
        "seconds_audio": sum(result.seconds for result in results),
        **took,
        "device": str(device),
        "threads": torch.get_num_threads(),
        **sum((Counter(result.counts) for result in results), Counter()),
    }
