//! Which experts each token goes to, and with which weight.

use crate::{ExpertsConfig, ModelError};
use posttrain_tensor::SharedTensor;
use posttrain_tensor::to_host;
use std::ops::Range;
use tch::{Kind, Tensor};

/// The router of a mixture of experts: `softmax(W·x)` in f32 whatever the model computes in, the
/// `k` largest, divided by their sum where the model was trained so (Shazeer et al., 2017,
/// <https://arxiv.org/abs/1701.06538>).
#[derive(Debug)]
pub(crate) struct Router {
    /// `[E, H]` f32.
    weight: SharedTensor,
    a_token: i64,
    normalized: bool,
}

/// Where the rows of a batch go. `N` rows with `k` experts each make `N·k` places, sorted by expert
/// and then by row.
#[derive(Debug)]
pub(crate) struct Routing {
    /// `[N, E]` f32: every expert's probability.
    probabilities: Tensor,
    /// `[N, k]` i64.
    chosen: Tensor,
    /// `[N, k]` f32: what a chosen expert's output is multiplied by. Gradients flow.
    weights: Tensor,
    /// `[N·k]` i64: the choice (row times `k`, plus rank) that lies at each place.
    order: Tensor,
    /// `[N·k]` i64: the place of each choice.
    places: Tensor,
    /// `[N·k]` i64: the row at each place, on the device and here.
    rows: Tensor,
    host_rows: Vec<i64>,
    /// Places of each expert.
    counts: Vec<i64>,
}

impl Router {
    /// From its weight `[E, H]`.
    pub fn new(weight: &Tensor, config: &ExpertsConfig) -> Result<Self, ModelError> {
        let weight = weight.f_to_kind(Kind::Float)?.into();
        Ok(Self { weight, a_token: config.a_token, normalized: config.normalized })
    }

    /// Its weight, `[E, H]` f32.
    pub fn weight(&self) -> Tensor {
        self.weight.handle()
    }

    /// Routes `x: [N, H]`. Among equal probabilities libtorch's `topk` chooses, so that ties break
    /// as in torch.
    pub fn route(&self, x: &Tensor) -> Result<Routing, ModelError> {
        let logits = x.f_to_kind(Kind::Float)?.f_linear(&self.weight, None::<&Tensor>)?;
        let probabilities = logits.f_softmax(-1, Kind::Float)?;
        let (top, chosen) = probabilities.f_topk(self.a_token, -1, true, true)?;
        let weights = if self.normalized { top.f_div(&sums(&top)?)? } else { top };

        let flat = chosen.f_flatten(0, 1)?;
        let (_, order) = flat.f_sort_stable(true, 0, false)?;
        let rows = order.f_divide_scalar_mode(self.a_token, "floor")?;
        let counts = flat.f_bincount(None::<&Tensor>, self.weight.size()[0])?;

        // One crossing for both.
        let mut counts_and_rows: Vec<i64> = to_host(&Tensor::f_cat(&[&counts, &rows], 0)?)?;
        let host_rows = counts_and_rows.split_off(counts.numel());

        let places = order.f_argsort(0, false)?;
        Ok(Routing {
            probabilities,
            chosen,
            weights,
            order,
            places,
            rows,
            host_rows,
            counts: counts_and_rows,
        })
    }

    /// The gradient by `x`, `[N, H]` f32, from that by the weights of the choices, `[N, k]` f32.
    pub fn backward(&self, routing: &Routing, by_weights: &Tensor) -> Result<Tensor, ModelError> {
        let Routing { probabilities, chosen, weights, .. } = routing;
        let by_top = if self.normalized {
            let along = sums(&by_weights.f_mul(weights)?)?;
            by_weights.f_sub(&along)?.f_div(&sums(&probabilities.f_gather(1, chosen, false)?)?)?
        } else {
            by_weights.shallow_clone()
        };

        let by_probabilities = probabilities.f_zeros_like()?.f_scatter(1, chosen, &by_top)?;
        let along = sums(&by_probabilities.f_mul(probabilities)?)?;
        Ok(by_probabilities.f_sub(&along)?.f_mul(probabilities)?.f_mm(&self.weight)?)
    }
}

fn sums(x: &Tensor) -> Result<Tensor, ModelError> {
    Ok(x.f_sum_dim_intlist([-1].as_slice(), true, Kind::Float)?)
}

impl Routing {
    /// The experts that any row goes to, with their places.
    pub fn runs(&self) -> impl Iterator<Item = (usize, Range<usize>)> {
        let ends = self.counts.iter().scan(0, |end, count| {
            *end += *count as usize;
            Some(*end - *count as usize..*end)
        });
        ends.enumerate().filter(|(_, places)| !places.is_empty())
    }

    /// The rows at some places.
    pub fn rows_at(&self, places: Range<usize>) -> &[i64] {
        &self.host_rows[places]
    }

    /// `x: [N, …]` to its places, `[N·k, …]`.
    pub fn scattered(&self, x: &Tensor) -> Result<Tensor, ModelError> {
        Ok(x.f_index_select(0, &self.rows)?)
    }

    /// The weights of the choices at their places, `[N·k, 1]` f32.
    pub fn weights_at_places(&self) -> Result<Tensor, ModelError> {
        Ok(self.weights.f_flatten(0, 1)?.f_index_select(0, &self.order)?.f_unsqueeze(1)?)
    }

    /// `[N·k, H]` at the places, summed in f32 over each row's choices: `[N, H]`.
    pub fn gathered(&self, at_places: &Tensor) -> Result<Tensor, ModelError> {
        let (rows, choices) = self.chosen.size2()?;
        let by_choice = at_places.f_index_select(0, &self.places)?.f_view([
            rows,
            choices,
            at_places.size()[1],
        ])?;
        Ok(by_choice.f_sum_dim_intlist([1].as_slice(), false, Kind::Float)?)
    }

    /// One number a place, `[N·k]`, by row and choice: `[N, k]`.
    pub fn by_choice(&self, at_places: &Tensor) -> Result<Tensor, ModelError> {
        Ok(at_places.f_index_select(0, &self.places)?.f_view_as(&self.chosen)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use posttrain_tensor::read_tensors;
    use std::path::Path;
    use tch::Device;

    fn router(experts: i64, a_token: i64, normalized: bool) -> Router {
        let config = ExpertsConfig {
            count: experts,
            a_token,
            intermediate_size: 1,
            normalized,
            layers: vec![0],
        };
        Router::new(&Tensor::eye(experts, (Kind::Float, Device::Cpu)), &config).unwrap()
    }

    /// With the identity for a weight, rows of logits go in.
    #[test]
    fn ties_break_as_in_torch() {
        let path =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/families/ties.safetensors");
        let golden = read_tensors(&path).unwrap();
        for i in 0..4 {
            let (logits, chosen) =
                (&golden[&format!("logits.{i}")], &golden[&format!("chosen.{i}")]);
            let routing = router(logits.size()[1], chosen.size()[1], true).route(logits).unwrap();
            assert_eq!(routing.chosen, *chosen, "{i}");
        }
    }

    #[test]
    fn every_choice_has_one_place_and_experts_lie_in_order() {
        let logits =
            Tensor::from_slice(&[0f32, 9.0, 8.0, 0.5, 9.0, 0.1, 0.2, 8.0, 7.0, 0.0, 0.0, 9.0])
                .view([3, 4]);
        let routing = router(4, 2, true).route(&logits).unwrap();
        let runs: Vec<_> = routing.runs().map(|(e, p)| (e, routing.rows_at(p).to_vec())).collect();
        assert_eq!(runs, [(0, vec![1, 2]), (1, vec![0]), (2, vec![0]), (3, vec![1, 2])]);
        // There and back, the weights of a row adding up to one.
        let back = routing.gathered(
            &(routing.scattered(&logits).unwrap() * routing.weights_at_places().unwrap()),
        );
        assert!((back.unwrap() - &logits).abs().max().double_value(&[]) < 1e-5);
    }

    #[test]
    fn the_backward_pass_is_autograds() {
        for normalized in [true, false] {
            let router = router(6, 3, normalized);
            let leaf = Tensor::randn([5, 6], (Kind::Float, Device::Cpu)).set_requires_grad(true);
            let upstream = Tensor::randn([5, 3], (Kind::Float, Device::Cpu));
            let routing = router.route(&leaf).unwrap();
            (&routing.weights * &upstream).sum(Kind::Float).backward();
            let got = tch::no_grad(|| router.backward(&routing, &upstream)).unwrap();
            assert!((got - leaf.grad()).abs().max().double_value(&[]) < 1e-6);
        }
    }
}
