//! Steps of three adapters on one base, of rank 8, 32 and 128 with different targets: each alone,
//! and all of them by turns through the training service. By turns they should take what they take
//! alone, one after the other.

use benches::{BenchModel, measure_peak, questions};
use criterion::{Criterion, SamplingMode, criterion_group, criterion_main};
use posttrain::lora::{LoraConfig, TargetModules};
use posttrain::loss::CrossEntropy;
use posttrain::train::{Datum, Trainer, TrainerConfig, TrainingService};
use std::sync::Arc;

/// Texts of a step.
const TEXTS: usize = 24;

fn loras() -> [LoraConfig; 3] {
    let names =
        |names: &[&str]| TargetModules::Names(names.iter().map(ToString::to_string).collect());
    [
        LoraConfig {
            rank: 8,
            target_modules: names(&["q_proj", "v_proj"]),
            ..LoraConfig::default()
        },
        LoraConfig { rank: 32, ..LoraConfig::default() },
        LoraConfig {
            rank: 128,
            target_modules: names(&["up_proj", "down_proj"]),
            ..LoraConfig::default()
        },
    ]
}

/// Questions with their answers, every token scored.
fn datums(model: &BenchModel) -> Vec<Datum> {
    let questions = questions().expect("questions").into_iter().take(TEXTS);
    let datum = |question: benches::Question| {
        let tokens = model.prompt(&question.question).expect("a prompt");
        Datum::text(&tokens, &vec![1.0; tokens.len()])
    };
    questions.map(datum).collect()
}

fn train_adapters(criterion: &mut Criterion) {
    let model = BenchModel::open().expect("the demonstration model");
    let datums = datums(&model);
    let config = TrainerConfig::default();
    let params = config.adam_params(1e-4);
    let mut group = criterion.benchmark_group("train_adapters");
    group.sample_size(10).sampling_mode(SamplingMode::Flat);

    for lora in loras() {
        let mut trainer = Trainer::new(model.decoder.clone(), &lora, config, 1).expect("a trainer");
        group.bench_function(format!("alone, rank {}", lora.rank), |bencher| {
            bencher.iter(|| {
                trainer.forward_backward(&datums, &CrossEntropy::default()).expect("passes");
                trainer.optim_step(&params).expect("a step");
            });
        });
    }

    let service = TrainingService::start(model.decoder).expect("a service");
    let clients = loras().map(|lora| service.create(&lora, config, 1).expect("a trainer"));
    let together = || {
        let mut steps = Vec::new();
        for client in &clients {
            drop(client.forward_backward(datums.clone(), Arc::new(CrossEntropy::default())));
            steps.push(client.optim_step(params));
        }
        steps.into_iter().for_each(|step| assert!(step.wait().expect("a step").grad_norm > 0.0));
    };
    measure_peak("train_adapters together", together).expect("memory");
    group.bench_function("together", |bencher| bencher.iter(together));
}

criterion_group!(benches, train_adapters);
criterion_main!(benches);
