//! Post-training libraries for language models: one dependency that re-exports them all
