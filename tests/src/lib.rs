//! Tests that cross crate borders live in `tests/`; this library holds what they share.
