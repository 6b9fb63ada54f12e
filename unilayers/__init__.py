"""unilayers: define a neural network once; train, compare and ship it on any engine."""
