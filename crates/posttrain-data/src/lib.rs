//! Question-answer examples for post-training: readers, the built-in sciences set, leak-free splits, domain mixing
