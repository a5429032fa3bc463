"""GGUF models through llama.cpp, over the low-level API of llama-cpp-python."""

import os

# Before libgomp is loaded with llama.cpp. By default its threads spin for milliseconds at every
# barrier: beside another busy program that makes two threads ten times slower than one. So short a
# spin costs nothing on an idle machine (docs/experiments.md).
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")

from innkeeper.backends.llama_cpp.load import load

__all__ = ["load"]
