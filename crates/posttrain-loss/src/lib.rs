//! Advantages, policy losses, KL estimators, fused log-probabilities and the token sampler for reinforcement learning on language models
