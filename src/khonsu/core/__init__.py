"""The pure middle: the model, the state machines and the rules; no I/O, no clock, no chance."""
