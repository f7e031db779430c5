//! Trainer primitives, the reinforcement-learning loop, checkpoints, metrics and evaluation
