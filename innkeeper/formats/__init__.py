"""Reads what model files say of themselves: headers only, validated before anyone trusts them."""
