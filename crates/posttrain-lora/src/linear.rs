//! A frozen linear layer with adapters beside it.

use crate::adapter::shape_error;
use crate::few_rows::FewRows;
use crate::rows::Run;
use crate::{Adapter, AdapterGradients, AdapterView, LoraError, RowAdapters, merged_weight};
use posttrain_tensor::{SharedTensor, check_shape};
use tch::Tensor;

/// A frozen linear layer, or several that share their input fused into one product, with adapters
/// beside the weights.
///
/// `y = x·Wᵀ + bias + s·(x·Aᵀ)·Bᵀ`. Fused parts (query, key and value; gate and up) are stacked in
/// `W` along the output; each part is a module of its own to an adapter, as in the files that PEFT
/// writes.
#[derive(Debug)]
pub struct AdaptedLinear {
    weight: SharedTensor,
    bias: Option<SharedTensor>,
    parts: Vec<Part>,
    unmerged: Option<SharedTensor>,
}

/// The thin products `x·Aᵀ: [N, R]` of a forward pass: of each run of rows, one for each adapted
/// part.
#[derive(Debug)]
pub struct ThinProducts {
    runs: Vec<RunProducts>,
}

/// One run's, part by part; nothing where the run has no adapter, or no rows.
type RunProducts = Vec<Option<Tensor>>;

/// One part of a layer with an adapter folded in.
#[derive(Debug)]
pub struct MergedPart {
    /// Its index in the model's list of modules.
    pub module: usize,
    /// `[out, in]` in the base's kind.
    pub weight: Tensor,
    /// `[out]`, where the layer has biases.
    pub bias: Option<Tensor>,
}

#[derive(Debug, Clone, Copy)]
struct Part {
    index: usize,
    out_features: i64,
}

impl AdaptedLinear {
    /// A layer from its frozen `weight: [out, in]`, `bias: [out]`, and its parts as (index in the
    /// model's list of modules, features out).
    ///
    /// # Errors
    /// [`LoraError::Tensor`] if weight, bias and parts disagree.
    pub fn new(
        weight: Tensor,
        bias: Option<Tensor>,
        parts: Vec<(usize, i64)>,
    ) -> Result<Self, LoraError> {
        let out: i64 = parts.iter().map(|p| p.1).sum();
        check_shape("weight", &weight, &[out, -1])?;
        if let Some(bias) = &bias {
            check_shape("bias", bias, &[out])?;
        }

        let parts =
            parts.into_iter().map(|(index, out_features)| Part { index, out_features }).collect();
        Ok(Self { weight: weight.into(), bias: bias.map(SharedTensor::new), parts, unmerged: None })
    }

    /// The weight `[out, in]`, with an adapter in it while one is merged.
    pub fn weight(&self) -> &Tensor {
        &self.weight
    }

    /// The layer's output for `x: [N, in]`, rows routed by `adapters`: `[N, out]`, in `x`'s kind.
    /// Gradients flow to `x` and to the adapters, never to the weight.
    ///
    /// # Errors
    /// [`LoraError::Tensor`] if `x` does not fit, [`LoraError::Shape`] if the runs of `adapters` do
    /// not add up to `N`.
    pub fn forward(&self, x: &Tensor, adapters: &RowAdapters) -> Result<Tensor, LoraError> {
        check_shape("x", x, &[-1, self.weight.size()[1]])?;
        let mut runs = runs(x, adapters)?;
        runs.retain(|run| run.rows > 0);

        let trains =
            x.requires_grad() || runs.iter().any(|r| r.adapter.is_some_and(AdapterView::trains));
        if posttrain_kernel::columns_pay(x) && !trains {
            return self.by_columns(x, &runs);
        }

        let base = x.f_linear(&self.weight, self.bias.as_deref())?;
        if !trains {
            for run in &runs {
                self.add_update(&base, x, run)?;
            }
            return Ok(base);
        }

        match runs.as_slice() {
            [] => Ok(base),
            [only] => self.adapted(base, x, only),
            many => self.adapted_by_runs(&base, x, many),
        }
    }

    /// The layer's output for `x: [N, in]`, and what [`AdaptedLinear::backward`] needs besides `x`.
    /// No autograd: the result lies row by row.
    ///
    /// # Errors
    /// Those of [`AdaptedLinear::forward`].
    pub fn forward_keeping(
        &self,
        x: &Tensor,
        adapters: &RowAdapters,
    ) -> Result<(Tensor, ThinProducts), LoraError> {
        check_shape("x", x, &[-1, self.weight.size()[1]])?;
        let runs = runs(x, adapters)?;
        let out = x.f_linear(&self.weight, self.bias.as_deref())?;
        let products = runs.iter().map(|run| self.add_update(&out, x, run));
        let thin = ThinProducts { runs: products.collect::<Result<_, _>>()? };
        Ok((out, thin))
    }

    /// `out += s·(x·Aᵀ)·Bᵀ` for every part of a run's rows, in place and without autograd.
    fn add_update(&self, out: &Tensor, x: &Tensor, run: &Run) -> Result<RunProducts, LoraError> {
        let Some(view) = run.adapter.filter(|_| run.rows > 0) else { return Ok(Vec::new()) };
        let lows = self.thin(&run.of(x)?, view)?;

        let out = run.of(out)?;
        let mut feature = 0;
        for (part, low) in self.parts.iter().zip(&lows) {
            if let (Some(layer), Some(low)) = (view.layer(part.index), low) {
                let _ = out
                    .f_narrow(1, feature, part.out_features)?
                    .f_addmm_(low, &layer.b.f_transpose(0, 1)?)?;
            }
            feature += part.out_features;
        }
        Ok(lows)
    }

    /// The thin products alone, `x·Aᵀ`.
    fn thin(&self, x: &Tensor, view: &AdapterView) -> Result<RunProducts, LoraError> {
        let together = self.stacked(view).map(|a| x.f_linear(&a, None::<&Tensor>)).transpose()?;

        let mut column = 0;
        let mut lows = Vec::with_capacity(self.parts.len());
        for part in &self.parts {
            let Some(layer) = view.layer(part.index) else {
                lows.push(None);
                continue;
            };
            let rank = layer.a.size()[0];
            lows.push(Some(match &together {
                Some(low) => low.f_narrow(1, column, rank)?,
                None => view.dropped(x, part.index)?.f_linear(&layer.a, None::<&Tensor>)?,
            }));
            column += rank;
        }
        Ok(lows)
    }

    /// The gradient by `x: [N, in]` from that by the output, `gradient: [N, out]`; those by the
    /// pairs of each run's adapter are added to its place in `sums`. `x` and `adapters` are those
    /// of [`AdaptedLinear::forward_keeping`], and so is `thin`; without it the thin products are
    /// computed again.
    ///
    /// `∂x = ∂y·W + (∂y·sB)·A`, `∂A = (∂y·sB)ᵀ·x`, `∂(sB) = ∂yᵀ·(x·Aᵀ)`, with dropout's mask where
    /// `A` saw it.
    ///
    /// # Errors
    /// [`LoraError::Shape`] if there is not a place for each run; [`LoraError::Torch`] if the shapes
    /// do not fit or memory fails.
    pub fn backward(
        &self,
        x: &Tensor,
        thin: Option<&ThinProducts>,
        gradient: &Tensor,
        adapters: &RowAdapters,
        sums: &mut [AdapterGradients],
    ) -> Result<Tensor, LoraError> {
        let runs = runs(x, adapters)?;
        if runs.len() != sums.len() {
            let expected = format!("{} places, one for each run", runs.len());
            return Err(shape_error("sums", expected, vec![sums.len() as i64]));
        }

        let by_x = gradient.f_mm(&self.weight)?;
        for (index, (run, sums)) in runs.iter().zip(sums).enumerate() {
            let Some(view) = run.adapter.filter(|_| run.rows > 0) else { continue };
            let x = run.of(x)?;
            let again = if thin.is_none() { Some(self.thin(&x, view)?) } else { None };
            let kept = thin.and_then(|thin| thin.runs.get(index));
            let lows = kept.or(again.as_ref()).map_or(&[][..], Vec::as_slice);
            self.backward_update(&x, lows, &run.of(gradient)?, view, (&run.of(&by_x)?, sums))?;
        }
        Ok(by_x)
    }

    /// What one run's update adds to the gradients by `x` and by the adapter's pairs.
    fn backward_update(
        &self,
        x: &Tensor,
        lows: &[Option<Tensor>],
        gradient: &Tensor,
        view: &AdapterView,
        (by_x, sums): (&Tensor, &mut AdapterGradients),
    ) -> Result<(), LoraError> {
        let mut by_x = by_x.shallow_clone();
        let stacked = self.stacked(view);
        let width = stacked.as_ref().map_or(0, |a| a.size()[0]);
        let by_low = Tensor::f_empty([x.size()[0], width], (x.kind(), x.device()))?;

        let mut feature = 0;
        let mut column = 0;
        for (part, low) in self.parts.iter().zip(lows) {
            let by_out = gradient.f_narrow(1, feature, part.out_features)?;
            feature += part.out_features;
            let (Some(layer), Some(low)) = (view.layer(part.index), low) else { continue };

            sums.add_b(part.index, &by_out.f_transpose(0, 1)?.f_mm(low)?)?;
            if stacked.is_some() {
                let rank = layer.a.size()[0];
                let _ = by_out.f_mm_out(&by_low.f_narrow(1, column, rank)?, &layer.b)?;
                column += rank;
            } else {
                let by_low = by_out.f_mm(&layer.b)?;
                sums.add_a(
                    part.index,
                    &by_low.f_transpose(0, 1)?.f_mm(&view.dropped(x, part.index)?)?,
                )?;
                // Dropout multiplies by a mask; so does its backward pass.
                let _ = by_x.f_add_(&view.dropped(&by_low.f_mm(&layer.a)?, part.index)?)?;
            }
        }

        if let Some(a) = stacked {
            let _ = by_x.f_addmm_(&by_low, &a)?;
            let by_a = by_low.f_transpose(0, 1)?.f_mm(x)?;
            let mut row = 0;
            for part in &self.parts {
                let rank = view.layer(part.index).map_or(0, |layer| layer.a.size()[0]);
                sums.add_a(part.index, &by_a.f_narrow(0, row, rank)?)?;
                row += rank;
            }
        }
        Ok(())
    }

    /// All parts' `A`s as one matrix, where all parts are adapted and nothing is dropped in
    /// between.
    fn stacked(&self, view: &AdapterView) -> Option<Tensor> {
        if view.drops() { None } else { view.stacked(self.parts.iter().map(|p| p.index)) }
    }

    /// Folds an adapter into the weight, `W + s·B·A` (added in f32, then rounded to `W`'s kind). In
    /// bf16 the rounding loses small updates, so this is for export and inference, not for sampling
    /// in training.
    ///
    /// # Errors
    /// [`LoraError::Shape`] if it is already merged or does not fit.
    pub fn merge(&mut self, adapter: &Adapter) -> Result<(), LoraError> {
        if self.unmerged.is_some() {
            return Err(shape_error(
                "adapter",
                "a layer that is not merged yet".into(),
                self.weight.size(),
            ));
        }

        let parts: Vec<Tensor> =
            self.merged_parts(Some(adapter))?.into_iter().map(|part| part.weight).collect();
        let merged = Tensor::f_cat(&parts, 0)?;
        self.unmerged = Some(std::mem::replace(&mut self.weight, merged.into()));
        Ok(())
    }

    /// The weights of the layer's parts, each with its update `s·B·A` where `adapter` has one.
    ///
    /// # Errors
    /// [`LoraError::Torch`] when memory fails.
    pub fn merged_parts(&self, adapter: Option<&Adapter>) -> Result<Vec<MergedPart>, LoraError> {
        let mut merged = Vec::with_capacity(self.parts.len());
        let mut start = 0;
        for part in &self.parts {
            let weight = self.weight.f_narrow(0, start, part.out_features)?;
            let bias = self
                .bias
                .as_ref()
                .map(|bias| bias.f_narrow(0, start, part.out_features))
                .transpose()?;
            let weight = match adapter.and_then(|adapter| adapter.pair(part.index)) {
                Some(pair) => merged_weight(&weight, pair)?,
                None => weight,
            };

            merged.push(MergedPart { module: part.index, weight, bias });
            start += part.out_features;
        }
        Ok(merged)
    }

    /// Takes a merged adapter out again, exactly: the original weight was kept. Without one,
    /// nothing happens.
    pub fn unmerge(&mut self) {
        if let Some(weight) = self.unmerged.take() {
            self.weight = weight;
        }
    }

    /// The same feature by feature, without a gradient: updates are added in place, and the `A`s of
    /// fused parts multiply the input together.
    fn by_columns(&self, x: &Tensor, runs: &[Run]) -> Result<Tensor, LoraError> {
        let few = FewRows::of(x, 0..x.size()[0])?;
        let mut out = few.product(&self.weight)?;
        if let Some(bias) = &self.bias {
            let _ = out.f_add_(&bias.f_unsqueeze(1)?)?;
        }

        for run in runs {
            let rows = run.start..run.start + run.rows;
            match run.adapter {
                Some(view) if runs.len() == 1 => {
                    self.update_columns(&mut out, &few, run.start, view)?
                }
                Some(view) => {
                    self.update_columns(&mut out, &FewRows::of(x, rows)?, run.start, view)?
                }
                None => {}
            }
        }

        Ok(out.f_transpose(0, 1)?)
    }

    /// `out += s·(x·Aᵀ)·Bᵀ` for every part, where `out: [features, N]` has a row for each feature and
    /// the rows `x` begin with its column `start`.
    fn update_columns(
        &self,
        out: &mut Tensor,
        x: &FewRows,
        start: i64,
        view: &AdapterView,
    ) -> Result<(), LoraError> {
        let stacked = view.stacked(self.parts.iter().map(|p| p.index));
        let by_row = |low: Tensor| low.f_transpose(0, 1);
        let together = stacked.map(|a| Ok::<_, LoraError>(by_row(x.product(&a)?)?)).transpose()?;

        let mut feature = 0;
        let mut column = 0;
        for part in &self.parts {
            if let Some(layer) = view.layer(part.index) {
                let rank = layer.a.size()[0];
                let low = match &together {
                    Some(low) => low.f_narrow(1, column, rank)?,
                    None => by_row(x.product(&layer.a)?)?,
                };
                FewRows::of(&low, 0..low.size()[0])?.add_product(
                    &layer.b,
                    out,
                    [start, feature],
                )?;
                column += rank;
            }
            feature += part.out_features;
        }
        Ok(())
    }

    fn adapted(&self, base: Tensor, x: &Tensor, run: &Run) -> Result<Tensor, LoraError> {
        match run.adapter {
            Some(view) if self.parts.iter().any(|p| view.layer(p.index).is_some()) => {
                Ok(base.f_add(&self.update(x, view)?)?)
            }
            _ => Ok(base),
        }
    }

    fn adapted_by_runs(
        &self,
        base: &Tensor,
        x: &Tensor,
        runs: &[Run],
    ) -> Result<Tensor, LoraError> {
        let adapted = |run| self.adapted(Run::of(run, base)?, &Run::of(run, x)?, run);
        let outputs = runs.iter().map(adapted).collect::<Result<Vec<_>, _>>()?;
        Ok(Tensor::f_cat(&outputs, 0)?)
    }

    /// `s·(x·Aᵀ)·Bᵀ` for every part, side by side; zero where a part is not adapted.
    fn update(&self, x: &Tensor, view: &AdapterView) -> Result<Tensor, LoraError> {
        let mut outputs = Vec::with_capacity(self.parts.len());
        for part in &self.parts {
            outputs.push(match view.layer(part.index) {
                Some(layer) => {
                    let low = view.dropped(x, part.index)?.f_linear(&layer.a, None::<&Tensor>)?;
                    low.f_linear(&layer.b, None::<&Tensor>)?
                }
                None => Tensor::f_zeros([x.size()[0], part.out_features], (x.kind(), x.device()))?,
            });
        }
        Ok(if outputs.len() == 1 { outputs.remove(0) } else { Tensor::f_cat(&outputs, 1)? })
    }
}

/// The runs of the rows of `x`.
fn runs<'a>(x: &Tensor, adapters: &RowAdapters<'a>) -> Result<Vec<Run<'a>>, LoraError> {
    adapters
        .runs(x.size()[0])
        .ok_or_else(|| shape_error("adapters", "runs that add up to N rows".into(), x.size()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LoraConfig, LoraPair, ModuleSpec, Segment};
    use proptest::prelude::*;
    use tch::{Device, Kind};

    fn random(shape: [i64; 2], seed: u64) -> Tensor {
        let module = ModuleSpec::new(format!("random.{shape:?}"), shape[1], shape[0]);
        let config = LoraConfig { rank: shape[0], ..LoraConfig::default() };
        let adapter = Adapter::init(&config, &[module], seed, Device::Cpu).unwrap();
        adapter.pair(0).unwrap().a.detach() * (shape[1] as f64).sqrt()
    }

    fn adapter(seed: u64, rank: i64) -> Adapter {
        let modules = [ModuleSpec::new("q", 5, 4), ModuleSpec::new("k", 5, 2)];
        let config = LoraConfig { rank, alpha: 3.0, ..LoraConfig::default() };
        let pair = |out, salt| {
            Some(LoraPair {
                a: random([rank, 5], seed + salt),
                b: random([out, rank], seed + salt + 1),
                scale: config.scale(),
            })
        };
        let pairs = vec![pair(4, 0), pair(2, 7)];
        Adapter::from_pairs(config.clone(), &modules, pairs).unwrap()
    }

    fn close(x: &Tensor, y: &Tensor) -> bool {
        (x - y).abs().max().double_value(&[]) < 1e-5
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn merged_equals_beside_and_unmerge_restores(seed in 0u64..1000, rank in 1i64..5, rows in 1i64..6) {
            let mut layer = AdaptedLinear::new(random([6, 5], seed + 99), None, vec![(0, 4), (1, 2)]).unwrap();
            let (x, adapter) = (random([rows, 5], seed + 5), adapter(seed, rank));
            let view = adapter.view(Kind::Float).unwrap();
            let beside = layer.forward(&x, &RowAdapters::all(Some(&view))).unwrap();
            let base = layer.forward(&x, &RowAdapters::none()).unwrap();
            layer.merge(&adapter).unwrap();
            prop_assert!(layer.merge(&adapter).is_err());
            let merged = layer.forward(&x, &RowAdapters::none()).unwrap();
            prop_assert!(close(&beside, &merged) && !close(&beside, &base));
            layer.unmerge();
            prop_assert_eq!(layer.forward(&x, &RowAdapters::none()).unwrap(), base);
        }

        /// In bf16, whose few rows are multiplied natively where the processor can: what f64 gives,
        /// within rounding, for one adapter and several, and for a weight that lies the other way.
        #[test]
        fn few_rows_in_bf16_are_exact_within_rounding(seed in 0u64..1000, rows in 1i64..40, strided in any::<bool>()) {
            let kind = Kind::BFloat16;
            let cast = |t: Tensor| t.to_kind(kind);
            let (weight, x) = (cast(random([6, 4], seed + 99)), cast(random([rows + 2, 4], seed + 5)));
            let laid = if strided { weight.tr().contiguous().tr() } else { weight.shallow_clone() };
            let modules = [ModuleSpec::new("q", 4, 4), ModuleSpec::new("k", 4, 2)];
            let config = LoraConfig { rank: 2, alpha: 3.0, ..LoraConfig::default() };
            let pair = |out, salt: u64| {
                let (a, b) = (random([2, 4], seed + salt), random([out, 2], seed + salt + 1));
                Some(LoraPair { a, b, scale: config.scale() })
            };
            let pairs = vec![pair(4, 0), pair(2, 7)];
            let view = Adapter::from_pairs(config.clone(), &modules, pairs).unwrap().snapshot(kind).unwrap();
            let layer = AdaptedLinear::new(laid, None, vec![(0, 4), (1, 2)]).unwrap();
            let double = |t: &Tensor| t.to_kind(Kind::Double);
            let update = |part: usize| {
                let layer = view.layer(part).unwrap();
                double(&x).mm(&double(&layer.a).tr()).mm(&double(&layer.b).tr())
            };
            let base = double(&x).mm(&double(&weight).tr());
            let adapted = &base + Tensor::cat(&[update(0), update(1)], 1);
            for (other, expected) in [(Some(&view), &adapted), (None, &base)] {
                let runs = vec![Segment { rows, adapter: Some(&view) }, Segment { rows: 2, adapter: other }];
                let got = double(&layer.forward(&x, &RowAdapters::segments(runs)).unwrap());
                let expected = Tensor::cat(&[adapted.narrow(0, 0, rows), expected.narrow(0, rows, 2)], 0);
                let off = (got - &expected).abs() - (expected.abs() * 0.01 + 0.03);
                prop_assert!(off.max().double_value(&[]) < 0.0);
            }
        }

        #[test]
        fn a_mixed_batch_equals_each_adapter_alone(seed in 0u64..1000) {
            let layer = AdaptedLinear::new(random([6, 5], seed), None, vec![(0, 4), (1, 2)]).unwrap();
            let x = random([6, 5], seed + 5);
            let (one, two) = (adapter(seed, 2), adapter(seed + 50, 3));
            let (one, two) = (one.snapshot(Kind::Float).unwrap(), two.snapshot(Kind::Float).unwrap());
            let runs = [(2, Some(&one)), (1, None), (3, Some(&two))];
            let runs = runs.map(|(rows, adapter)| Segment { rows, adapter });
            let mixed = layer.forward(&x, &RowAdapters::segments(runs.to_vec())).unwrap();
            let mut start = 0;
            for run in runs {
                let alone = layer.forward(&x.narrow(0, start, run.rows), &RowAdapters::all(run.adapter)).unwrap();
                prop_assert!(close(&alone, &mixed.narrow(0, start, run.rows)));
                start += run.rows;
            }
        }
    }

    #[test]
    fn gradients_reach_the_adapter_and_not_the_base() {
        let weight = random([6, 5], 1);
        let layer = AdaptedLinear::new(weight.shallow_clone(), None, vec![(0, 4), (1, 2)]).unwrap();
        let adapter = adapter(3, 2);
        let view = adapter.view(Kind::Float).unwrap();
        layer
            .forward(&random([3, 5], 2), &RowAdapters::all(Some(&view)))
            .unwrap()
            .sum(Kind::Float)
            .backward();
        adapter.check_gradients().unwrap();
        assert!(!weight.grad().defined());
    }

    #[test]
    fn a_snapshot_does_not_follow_training() {
        let adapter = adapter(3, 2);
        let snapshot = adapter.snapshot(Kind::Float).unwrap();
        let before = snapshot.pair(0).unwrap().0.copy();
        let _ = tch::no_grad(|| adapter.pair(0).unwrap().a.shallow_clone().fill_(9.0));
        assert_eq!(snapshot.pair(0).unwrap().0, &before);
    }

    #[test]
    fn wrong_shapes_are_errors() {
        assert!(AdaptedLinear::new(random([6, 5], 0), None, vec![(0, 5)]).is_err());
        let layer = AdaptedLinear::new(random([6, 5], 0), None, vec![(0, 6)]).unwrap();
        assert!(layer.forward(&random([2, 4], 0), &RowAdapters::none()).is_err());
        let runs = vec![Segment { rows: 3, adapter: None }];
        assert!(layer.forward(&random([2, 5], 0), &RowAdapters::segments(runs)).is_err());
    }
}
