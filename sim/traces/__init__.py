"""Readers of traces, one file format each. They give plain values and say which lines were no good."""
