//! A mixture of experts: a router, and feed-forward layers that each compute the rows that were
//! sent to them.

use crate::feed_forward::{Gated, GatedKept, modules};
use crate::frozen_linear::FrozenLinear;
use crate::linears::Linears;
use crate::routing::{Router, Routing};
use crate::{ExpertsConfig, ModelConfig, ModelError};
use posttrain_lora::{AdapterGradients, RowAdapters};
use std::ops::Range;
use tch::{Kind, Tensor};

/// The experts of a layer.
///
/// Rows are sorted by expert once; each expert that has any computes them as one run of memory, and
/// its products are those of any other layer. Nothing loops over tokens, and an expert without one
/// is not computed.
#[derive(Debug)]
pub(crate) struct Experts {
    router: Router,
    experts: Vec<Gated>,
}

/// What the forward pass keeps for the way back.
#[derive(Debug)]
pub(crate) struct ExpertsKept {
    routing: Routing,
    /// In the order of the routing's runs.
    experts: Vec<GatedKept>,
    /// `[N·k, H]`: what the experts gave, not yet weighted.
    outputs: Tensor,
}

impl Experts {
    pub fn load(
        config: &ModelConfig,
        experts: &ExpertsConfig,
        layer: i64,
        linears: &mut Linears,
    ) -> Result<Self, ModelError> {
        let name = format!("model.layers.{layer}.mlp.gate.weight");
        let router = linears.weights().take(&name, &[experts.count, config.hidden_size])?;
        let router = Router::new(&router, experts)?;

        let specs = modules(config, layer);
        let experts = specs
            .chunks_exact(3)
            .map(|specs| Gated::load(specs, linears))
            .collect::<Result<_, _>>()?;
        Ok(Self { router, experts })
    }

    /// `x: [N, H]`, normed, through the experts. Gradients flow, through the router as well.
    pub fn forward(&self, x: &Tensor, adapters: &RowAdapters) -> Result<Tensor, ModelError> {
        let routing = self.router.route(x)?;
        let scattered = routing.scattered(x)?;

        let mut outputs = Vec::with_capacity(self.experts.len());
        for (expert, places) in routing.runs() {
            let adapters = routed(adapters, &routing, &places, x)?;
            outputs.push(self.experts[expert].forward(&part(&scattered, &places)?, &adapters)?.0);
        }

        let out = combined(&routing, &Tensor::f_cat(&outputs, 0)?, x.kind())?;
        Ok(posttrain_kernel::laid_out(out)?)
    }

    pub fn forward_keeping(
        &self,
        x: &Tensor,
        adapters: &RowAdapters,
    ) -> Result<(Tensor, ExpertsKept), ModelError> {
        let routing = self.router.route(x)?;
        let scattered = routing.scattered(x)?;

        let mut outputs = Vec::new();
        let mut kept = Vec::new();

        for (expert, places) in routing.runs() {
            let adapters = routed(adapters, &routing, &places, x)?;
            let (output, its) =
                self.experts[expert].forward_keeping(&part(&scattered, &places)?, &adapters)?;
            outputs.push(output);
            kept.push(its);
        }

        let outputs = Tensor::f_cat(&outputs, 0)?;
        let out = combined(&routing, &outputs, x.kind())?;
        Ok((out, ExpertsKept { routing, experts: kept, outputs }))
    }

    pub fn backward(
        &self,
        x: &Tensor,
        kept: &ExpertsKept,
        gradient: &Tensor,
        adapters: &RowAdapters,
        sums: &mut [AdapterGradients],
    ) -> Result<Tensor, ModelError> {
        let ExpertsKept { routing, experts, outputs } = kept;

        let by_place = routing.scattered(gradient)?.f_to_kind(Kind::Float)?;
        let by_weights =
            by_place.f_mul(outputs)?.f_sum_dim_intlist([-1].as_slice(), false, Kind::Float)?;
        let by_output = by_place.f_mul(&routing.weights_at_places()?)?.f_to_kind(x.kind())?;

        let scattered = routing.scattered(x)?;
        let mut by_scattered = Vec::with_capacity(experts.len());
        for ((expert, places), its) in routing.runs().zip(experts) {
            let adapters = routed(adapters, routing, &places, x)?;
            let x = part(&scattered, &places)?;
            let gradient = part(&by_output, &places)?;
            by_scattered.push(self.experts[expert].backward(&x, its, &gradient, &adapters, sums)?);
        }

        let by_x = routing.gathered(&Tensor::f_cat(&by_scattered, 0)?)?;
        let through_router = self.router.backward(routing, &routing.by_choice(&by_weights)?)?;
        Ok(by_x.f_add(&through_router)?.f_to_kind(x.kind())?)
    }

    pub fn linears(&self) -> Vec<&FrozenLinear> {
        self.experts.iter().flat_map(Gated::linears).collect()
    }

    pub fn router_weight(&self) -> Tensor {
        self.router.weight()
    }

    pub fn linears_mut(&mut self) -> Vec<&mut FrozenLinear> {
        self.experts.iter_mut().flat_map(Gated::linears_mut).collect()
    }
}

/// The adapters of the rows of `x` that are at certain places.
fn routed<'a>(
    adapters: &RowAdapters<'a>,
    routing: &Routing,
    places: &Range<usize>,
    x: &Tensor,
) -> Result<RowAdapters<'a>, ModelError> {
    adapters.selected(routing.rows_at(places.clone()), x.size()[0]).ok_or_else(|| {
        crate::packing::argument(
            "adapters",
            "runs that add up to the rows",
            format!("{adapters:?}"),
        )
    })
}

fn part(x: &Tensor, places: &Range<usize>) -> Result<Tensor, ModelError> {
    Ok(x.f_narrow(0, places.start as i64, places.len() as i64)?)
}

/// The experts' outputs at their places, weighted and added up in f32, in `kind`.
fn combined(routing: &Routing, outputs: &Tensor, kind: Kind) -> Result<Tensor, ModelError> {
    Ok(routing.gathered(&outputs.f_mul(&routing.weights_at_places()?)?)?.f_to_kind(kind)?)
}
