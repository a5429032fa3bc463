"""GGUF models through llama.cpp, over the low-level API of llama-cpp-python."""

from innkeeper.backends.llama_cpp.load import load

__all__ = ["load"]
