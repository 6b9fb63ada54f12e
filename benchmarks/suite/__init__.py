"""How fast unilayers is beside the frameworks it runs on, and beside Keras: ``python -m benchmarks.suite``."""
