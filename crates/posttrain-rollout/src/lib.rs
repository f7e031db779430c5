//! The generation engine: batched sampling from one base with many adapters
