//! An adapter: the trained pairs `(A, B)`, aligned with a model's list of modules.

use crate::{AdapterGradients, AdapterView, LoraConfig, LoraError, ModuleSpec, TargetModules};
use posttrain_tensor::host_copy;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use tch::{Device, Kind, Tensor};

/// The two factors of one layer's update `ΔW = s·B·A`.
#[derive(Debug)]
pub struct LoraPair {
    /// `A: [R, in]` f32, a leaf.
    pub a: Tensor,
    /// `B: [out, R]` f32, a leaf.
    pub b: Tensor,
    /// The scale `s`.
    pub scale: f64,
}

impl LoraPair {
    fn copied(&self) -> Result<Self, LoraError> {
        let a = leaf(&host_copy(&self.a)?)?;
        let b = leaf(&host_copy(&self.b)?)?;
        Ok(Self { a, b, scale: self.scale })
    }
}

/// A LoRA adapter: a pair for every targeted module, in f32 whatever the base computes in.
#[derive(Debug)]
pub struct Adapter {
    config: LoraConfig,
    modules: Vec<ModuleSpec>,
    pairs: Vec<Option<LoraPair>>,
}

impl Adapter {
    /// A fresh adapter: `A` Kaiming-uniform with a = √5, which is `U(−1/√in, 1/√in)`; `B` zero
    /// (PEFT's initialization, `peft/tuners/lora/layer.py`). Each layer's numbers depend on `seed`
    /// and its path alone.
    ///
    /// # Errors
    /// [`LoraError::Config`] or [`LoraError::UnknownTarget`] for a bad `config`;
    /// [`LoraError::Torch`] when memory fails.
    pub fn init(
        config: &LoraConfig,
        modules: &[ModuleSpec],
        seed: u64,
        device: Device,
    ) -> Result<Self, LoraError> {
        config.validate()?;

        let mut pairs: Vec<Option<LoraPair>> = modules.iter().map(|_| None).collect();
        for index in config.select(modules)? {
            let module = &modules[index];
            let a = kaiming_uniform(config.rank, module, seed)?.f_to_device(device)?;
            let b = Tensor::f_zeros([module.out_features, config.rank], (Kind::Float, device))?;
            pairs[index] = Some(LoraPair { a: leaf(&a)?, b: leaf(&b)?, scale: config.scale() });
        }

        Ok(Self { config: config.clone(), modules: modules.to_vec(), pairs })
    }

    /// An adapter from tensors that were read or computed elsewhere; `pairs[i]` belongs to
    /// `modules[i]`. The tensors become f32 leaves that require a gradient.
    ///
    /// # Errors
    /// [`LoraError::Shape`] names the first tensor that does not fit its module.
    pub fn from_pairs(
        config: LoraConfig,
        modules: &[ModuleSpec],
        pairs: Vec<Option<LoraPair>>,
    ) -> Result<Self, LoraError> {
        if pairs.len() != modules.len() {
            return Err(shape_error(
                "pairs",
                format!("[{} modules]", modules.len()),
                vec![pairs.len() as i64],
            ));
        }

        let mut kept = Vec::with_capacity(pairs.len());
        for (module, pair) in modules.iter().zip(pairs) {
            kept.push(pair.map(|pair| checked_pair(module, &pair)).transpose()?);
        }
        Ok(Self { config, modules: modules.to_vec(), pairs: kept })
    }

    /// The adapter that a view shows, with the scale folded into `B` as the view has it: for whoever
    /// reads files and is to compute what the view's readers do. Its rank is the largest of its
    /// layers'.
    ///
    /// # Errors
    /// [`LoraError::Shape`] for a view of other modules; [`LoraError::Torch`] when memory fails.
    pub fn from_view(view: &AdapterView, modules: &[ModuleSpec]) -> Result<Self, LoraError> {
        let mut pairs = Vec::with_capacity(modules.len());
        let mut names = std::collections::BTreeSet::new();
        let mut rank = 1;
        for (index, module) in modules.iter().enumerate() {
            let Some((a, b)) = view.pair(index) else {
                pairs.push(None);
                continue;
            };
            rank = rank.max(a.size()[0]);
            names.insert(module.name().to_owned());
            pairs.push(Some(LoraPair { a: host_copy(a)?, b: host_copy(b)?, scale: 1.0 }));
        }
        let targets = TargetModules::Names(names.into_iter().collect());
        let config =
            LoraConfig { rank, alpha: rank as f64, target_modules: targets, ..Default::default() };
        Self::from_pairs(config, modules, pairs)
    }

    /// The configuration that it was made from.
    #[must_use]
    pub fn config(&self) -> &LoraConfig {
        &self.config
    }

    /// The model's modules that the pairs are aligned with.
    #[must_use]
    pub fn modules(&self) -> &[ModuleSpec] {
        &self.modules
    }

    /// The pair of module `index`, if it is adapted.
    pub fn pair(&self, index: usize) -> Option<&LoraPair> {
        self.pairs.get(index).and_then(Option::as_ref)
    }

    /// Every adapted module with its pair, in the modules' order.
    pub fn layers(&self) -> impl Iterator<Item = (&ModuleSpec, &LoraPair)> {
        self.modules.iter().zip(&self.pairs).filter_map(|(m, p)| p.as_ref().map(|p| (m, p)))
    }

    /// Every trained tensor with its name (`<path>.lora_A.weight`, `<path>.lora_B.weight`), in a
    /// fixed order.
    #[must_use]
    pub fn parameters(&self) -> Vec<(String, Tensor)> {
        let name = |m: &ModuleSpec, half: &str| format!("{}.lora_{half}.weight", m.path);
        self.layers()
            .flat_map(|(m, p)| {
                [(name(m, "A"), p.a.shallow_clone()), (name(m, "B"), p.b.shallow_clone())]
            })
            .collect()
    }

    /// The number of trained values.
    #[must_use]
    pub fn parameter_count(&self) -> usize {
        self.layers().map(|(_, p)| p.a.numel() + p.b.numel()).sum()
    }

    /// The pairs in the kind that the base computes in; gradients flow through the view to the f32
    /// leaves.
    ///
    /// # Errors
    /// [`LoraError::Torch`] when memory fails.
    pub fn view(&self, kind: Kind) -> Result<AdapterView, LoraError> {
        AdapterView::of(self, kind)
    }

    /// A frozen copy of the pairs in `kind`, which later training does not change: what a sampler
    /// holds.
    ///
    /// # Errors
    /// [`LoraError::Torch`] when memory fails.
    pub fn snapshot(&self, kind: Kind) -> Result<AdapterView, LoraError> {
        let _guard = tch::no_grad_guard();
        AdapterView::of(self, kind)?.detached_copy()
    }

    /// A copy on the host, in tensors of its own, which later training of this one does not change; without
    /// gradients.
    ///
    /// # Errors
    /// [`LoraError::Torch`] when memory fails.
    pub fn copied(&self) -> Result<Self, LoraError> {
        let mut pairs = Vec::with_capacity(self.pairs.len());
        for pair in &self.pairs {
            pairs.push(pair.as_ref().map(LoraPair::copied).transpose()?);
        }
        Ok(Self { config: self.config.clone(), modules: self.modules.clone(), pairs })
    }

    /// Adds gradients that were collected by hand through a view of this adapter to those of its
    /// leaves.
    ///
    /// # Errors
    /// [`LoraError::Torch`] when memory fails.
    pub fn add_gradients(&self, gradients: &AdapterGradients) -> Result<(), LoraError> {
        for (index, pair) in self.pairs.iter().enumerate() {
            let (Some(pair), (a, b)) = (pair, gradients.layer(index)) else { continue };
            if let Some(a) = a {
                add_gradient(&pair.a, a)?;
            }
            if let Some(b) = b {
                // The view holds s·B.
                add_gradient(&pair.b, &b.f_mul_scalar(pair.scale)?)?;
            }
        }
        Ok(())
    }

    /// The gradients that were collected, in the order of [`Adapter::parameters`]; none where none
    /// was.
    ///
    /// # Errors
    /// [`LoraError::Torch`] when the device fails.
    pub fn gradients(&self) -> Result<Vec<Option<Tensor>>, LoraError> {
        let gradient = |(_, leaf): (String, Tensor)| {
            let gradient = leaf.f_grad()?;
            Ok(gradient.defined().then_some(gradient))
        };
        self.parameters().into_iter().map(gradient).collect()
    }

    /// Puts other gradients in their place, in the order of [`Adapter::parameters`]; where there is
    /// none, what was collected stays.
    ///
    /// # Errors
    /// [`LoraError::Torch`] for another shape, or when memory fails.
    pub fn set_gradients(&self, gradients: &[Option<Tensor>]) -> Result<(), LoraError> {
        for ((_, leaf), gradient) in self.parameters().iter().zip(gradients) {
            if let Some(gradient) = gradient {
                with_gradient(leaf)?.f_copy_(gradient)?;
            }
        }
        Ok(())
    }

    /// Whether any layer has a gradient other than zero.
    ///
    /// # Errors
    /// [`LoraError::Torch`] when the device fails.
    pub fn has_gradients(&self) -> Result<bool, LoraError> {
        for (_, pair) in self.layers() {
            if has_gradient(&pair.b)? || has_gradient(&pair.a)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Checks that a gradient reached every layer: `B`'s is all zero only where nothing trains
    /// (`A`'s is zero at the first step, since `B` is). Call it after the first backward pass of a
    /// loss that has a signal. Of the layers that only some tokens reach, one is enough.
    ///
    /// # Errors
    /// [`LoraError::NoGradient`] with the count of dead layers and the first one's path.
    pub fn check_gradients(&self) -> Result<(), LoraError> {
        let total = self.layers().count();
        let mut dead = Vec::new();
        let mut idle = Vec::new();
        let mut reached = false;
        for (module, pair) in self.layers() {
            let alive = has_gradient(&pair.b)?;
            match (alive, module.routed) {
                (true, routed) => reached |= routed,
                (false, true) => idle.push(module.path.clone()),
                (false, false) => dead.push(module.path.clone()),
            }
        }
        if !reached {
            dead.append(&mut idle);
        }

        match dead.first() {
            Some(first) => {
                Err(LoraError::NoGradient { count: dead.len(), total, first: first.clone() })
            }
            None => Ok(()),
        }
    }
}

fn add_gradient(leaf: &Tensor, more: &Tensor) -> Result<(), LoraError> {
    let _ = with_gradient(leaf)?.f_add_(more)?;
    Ok(())
}

/// A leaf's gradient, which is zero where it had none.
fn with_gradient(leaf: &Tensor) -> Result<Tensor, LoraError> {
    if !leaf.f_grad()?.defined() {
        // Only a backward pass can give a leaf a gradient: one of zero.
        tch::with_grad(|| leaf.f_mul_scalar(0.0)?.f_sum(Kind::Float)?.f_backward())?;
    }
    Ok(leaf.f_grad()?)
}

fn has_gradient(leaf: &Tensor) -> Result<bool, LoraError> {
    let grad = leaf.f_grad()?;
    Ok(grad.defined() && grad.f_count_nonzero(None)?.f_int64_value(&[])? > 0)
}

fn leaf(tensor: &Tensor) -> Result<Tensor, LoraError> {
    Ok(tensor.f_to_kind(Kind::Float)?.f_detach()?.f_contiguous()?.f_set_requires_grad(true)?)
}

fn checked_pair(module: &ModuleSpec, pair: &LoraPair) -> Result<LoraPair, LoraError> {
    let (a, b) = (pair.a.size(), pair.b.size());
    if a.len() != 2 || a[0] < 1 || a[1] != module.in_features {
        let name = format!("{}.lora_A", module.path);
        return Err(shape_error(&name, format!("[R, {}]", module.in_features), a));
    }
    if b != [module.out_features, a[0]] {
        let name = format!("{}.lora_B", module.path);
        return Err(shape_error(&name, format!("[{}, {}]", module.out_features, a[0]), b));
    }
    Ok(LoraPair { a: leaf(&pair.a)?, b: leaf(&pair.b)?, scale: pair.scale })
}

pub(crate) fn shape_error(argument: &str, expected: String, got: Vec<i64>) -> LoraError {
    LoraError::Shape { argument: argument.into(), expected, got }
}

fn kaiming_uniform(rank: i64, module: &ModuleSpec, seed: u64) -> Result<Tensor, LoraError> {
    let bound = 1.0 / (module.in_features as f32).sqrt();
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ fnv1a(&module.path));
    let values: Vec<f32> =
        (0..rank * module.in_features).map(|_| (2.0 * unit(&mut rng) - 1.0) * bound).collect();
    Ok(Tensor::f_from_slice(&values)?.f_view([rank, module.in_features])?)
}

/// Uniform in `[0, 1)` with 24 bits, the same on every platform.
fn unit(rng: &mut ChaCha8Rng) -> f32 {
    (rng.next_u32() >> 8) as f32 / (1u32 << 24) as f32
}

/// FNV-1a, 64 bits: a stable hash of a path, so that a layer's numbers do not depend on its
/// neighbors.
pub(crate) fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TargetModules;

    fn modules() -> Vec<ModuleSpec> {
        vec![ModuleSpec::new("l.0.q_proj", 8, 4), ModuleSpec::new("l.0.up_proj", 8, 6)]
    }

    #[test]
    fn init_is_bounded_seeded_and_zero_in_b() {
        let config = LoraConfig { rank: 3, ..LoraConfig::default() };
        let first = Adapter::init(&config, &modules(), 5, Device::Cpu).unwrap();
        let again = Adapter::init(&config, &modules(), 5, Device::Cpu).unwrap();
        let other = Adapter::init(&config, &modules(), 6, Device::Cpu).unwrap();
        for ((_, p), (_, q)) in first.layers().zip(again.layers()) {
            assert_eq!(p.a, q.a);
            assert!(p.a.abs().max().double_value(&[]) <= 1.0 / 8f64.sqrt());
            assert_eq!(p.b.abs().max().double_value(&[]), 0.0);
        }
        assert_ne!(first.pair(0).unwrap().a, other.pair(0).unwrap().a);
        assert_eq!(first.parameter_count(), 3 * (8 + 4) + 3 * (8 + 6));
    }

    #[test]
    fn a_target_list_leaves_the_rest_alone() {
        let target_modules = TargetModules::Names(vec!["up_proj".into()]);
        let config = LoraConfig { rank: 2, target_modules, ..LoraConfig::default() };
        let adapter = Adapter::init(&config, &modules(), 0, Device::Cpu).unwrap();
        assert!(adapter.pair(0).is_none() && adapter.pair(1).is_some());
    }

    #[test]
    fn a_dead_layer_is_named() {
        let config = LoraConfig { rank: 2, ..LoraConfig::default() };
        let adapter = Adapter::init(&config, &modules(), 0, Device::Cpu).unwrap();
        let q = adapter.pair(0).unwrap();
        q.b.matmul(&q.a).sum(Kind::Float).backward();
        let error = adapter.check_gradients().unwrap_err().to_string();
        assert!(error.contains("1 of 2") && error.contains("l.0.up_proj"), "{error}");
        let up = adapter.pair(1).unwrap();
        up.b.matmul(&up.a).sum(Kind::Float).backward();
        adapter.check_gradients().unwrap();
    }

    #[test]
    fn an_idle_expert_is_no_fault_but_idle_experts_alone_are() {
        let expert = |n: i64| ModuleSpec::new(format!("l.0.experts.{n}.up_proj"), 8, 6).routed();
        let config = LoraConfig { rank: 2, ..LoraConfig::default() };
        let adapter = Adapter::init(&config, &[expert(0), expert(1)], 0, Device::Cpu).unwrap();
        assert!(adapter.check_gradients().unwrap_err().to_string().contains("2 of 2"));
        let first = adapter.pair(0).unwrap();
        first.b.matmul(&first.a).sum(Kind::Float).backward();
        adapter.check_gradients().unwrap();
    }
}
