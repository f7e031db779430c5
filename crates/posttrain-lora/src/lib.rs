//! Low-rank adapters: configuration, adapted linear layers, a bank of adapters on one base, PEFT files
