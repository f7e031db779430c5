//! Attention of whole texts, forward and backward, against dense masked attention in f64.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use posttrain_kernel::{
    Heads, KeyValues, PackedOutput, PackedStep, PackedText, SharedText, attend_packed,
    attend_packed_backward, attend_packed_behind,
};
use proptest::prelude::*;
use tch::{Device, Kind, Tensor};

const CPU: (Kind, Device) = (Kind::Float, Device::Cpu);

/// A step's tensors, and a gradient to walk back with.
struct Case {
    heads: Heads,
    texts: Vec<PackedText>,
    qkv: Tensor,
    cos: Tensor,
    sin: Tensor,
    gradient: Tensor,
}

impl Case {
    fn new(heads: Heads, texts: Vec<PackedText>, seed: i64) -> Self {
        tch::manual_seed(seed);
        let rows = positions(&texts).len() as i64;
        let features = (heads.query + 2 * heads.key_value) * heads.width;
        let frequencies = Tensor::randn([1, heads.width as i64 / 2], CPU);
        let angles =
            Tensor::from_slice(&positions(&texts)).to_kind(Kind::Float).unsqueeze(1) * frequencies;
        Self {
            qkv: Tensor::randn([rows, features as i64], CPU) * 2.0,
            gradient: Tensor::randn([rows, (heads.query * heads.width) as i64], CPU),
            cos: angles.cos(),
            sin: angles.sin(),
            heads,
            texts,
        }
    }

    fn step(&self) -> PackedStep<'_> {
        PackedStep {
            heads: self.heads,
            qkv: &self.qkv,
            cos: &self.cos,
            sin: &self.sin,
            texts: &self.texts,
        }
    }

    fn to_kind(&self, kind: Kind) -> Self {
        let Self { heads, texts, qkv, cos, sin, gradient } = self;
        let (qkv, gradient) = (qkv.to_kind(kind), gradient.to_kind(kind));
        Self {
            heads: *heads,
            texts: texts.clone(),
            qkv,
            gradient,
            cos: cos.copy(),
            sin: sin.copy(),
        }
    }

    /// The same rows in another order, as other texts.
    fn with_rows(&self, rows: &[i64], texts: Vec<PackedText>) -> Self {
        let rows = Tensor::from_slice(rows);
        let pick = |t: &Tensor| t.index_select(0, &rows);
        let (qkv, gradient) = (pick(&self.qkv), pick(&self.gradient));
        Self { heads: self.heads, texts, qkv, gradient, cos: pick(&self.cos), sin: pick(&self.sin) }
    }

    /// Some rows' keys and values, as what was read of a text.
    fn read(&self, first: i64, tokens: i64) -> SharedText {
        let Heads { query, key_value, width } = self.heads;
        let sizes = [query, key_value, key_value].map(|heads| heads as i64);
        let rows = |t: &Tensor| t.narrow(0, first, tokens);
        let heads = sizes.iter().sum::<i64>();
        let parts = rows(&self.qkv)
            .view([tokens, heads, width as i64])
            .split_with_sizes(sizes.as_slice(), 1);

        let halves = parts[1].chunk(2, -1);
        let (cos, sin) = (rows(&self.cos).unsqueeze(1), rows(&self.sin).unsqueeze(1));
        let keys = Tensor::cat(
            &[&halves[0] * &cos - &halves[1] * &sin, &halves[1] * &cos + &halves[0] * &sin],
            -1,
        );

        let mut read = KeyValues::new(self.heads, 1, Kind::Float).unwrap();
        read.extend(0, &keys, &parts[2]).unwrap();
        SharedText::default().followed_by(read).unwrap()
    }

    fn run(&self) -> (PackedOutput, Tensor) {
        let attended = attend_packed(&self.step()).unwrap();
        let by_qkv = attend_packed_backward(&self.step(), &attended, &self.gradient).unwrap();
        (attended, by_qkv)
    }

    /// Output, logarithms of sums, and gradient by `qkv`, all in f64 by libtorch and its autograd.
    fn reference(&self) -> [Tensor; 3] {
        let Heads { query, key_value, width } = self.heads;
        let [query, key_value, width] = [query, key_value, width].map(|n| n as i64);
        let double = |t: &Tensor| t.to_kind(Kind::Double);
        let qkv = double(&self.qkv).set_requires_grad(true);
        let parts = qkv
            .view([-1, query + 2 * key_value, width])
            .split_with_sizes([query, key_value, key_value], 1);
        let (cos, sin) = (double(&self.cos).unsqueeze(1), double(&self.sin).unsqueeze(1));
        let turned = |x: &Tensor| {
            let halves = x.chunk(2, -1);
            Tensor::cat(
                &[&halves[0] * &cos - &halves[1] * &sin, &halves[1] * &cos + &halves[0] * &sin],
                -1,
            )
        };
        let expanded =
            |x: Tensor| x.repeat_interleave_self_int(query / key_value, 1, None).transpose(0, 1);
        let (q, k, v) = (
            turned(&parts[0]).transpose(0, 1),
            expanded(turned(&parts[1])),
            expanded(parts[2].copy()),
        );
        let scores = q.matmul(&k.transpose(1, 2)) / (width as f64).sqrt() + mask(&self.texts);
        let out = scores.softmax(-1, Kind::Double).matmul(&v).transpose(0, 1).flatten(1, 2);
        (&out * double(&self.gradient)).sum(Kind::Double).backward();
        [out.detach(), scores.logsumexp(-1, false).tr().detach(), qkv.grad()]
    }
}

/// Every token's position in its own text.
fn positions(texts: &[PackedText]) -> Vec<i64> {
    let completion =
        |text: &PackedText, tokens| (text.prompt..text.prompt + tokens).collect::<Vec<_>>();
    let positions = |text: &PackedText| {
        let completions: Vec<_> =
            text.completions.iter().flat_map(|&tokens| completion(text, tokens)).collect();
        (0..text.prompt).chain(completions).collect::<Vec<_>>()
    };
    texts.iter().flat_map(positions).map(|position| position as i64).collect()
}

/// `[N, N]`: 0 where a row may look, −∞ elsewhere.
fn mask(texts: &[PackedText]) -> Tensor {
    let rows = positions(texts).len();
    let mut mask = vec![f64::NEG_INFINITY; rows * rows];
    let mut allow = |row: usize, seen: std::ops::Range<usize>| mask[row * rows..][seen].fill(0.0);
    let mut at = 0;
    for text in texts {
        let (prompt, mut start) = (at..at + text.prompt, at + text.prompt);
        prompt.clone().for_each(|row| allow(row, at..row + 1));
        for &tokens in &text.completions {
            for row in start..start + tokens {
                allow(row, prompt.clone());
                allow(row, start..row + 1);
            }
            start += tokens;
        }
        at = start;
    }
    Tensor::from_slice(&mask).view([rows as i64, rows as i64])
}

fn off(got: &Tensor, expected: &Tensor) -> f64 {
    let expected = expected.to_kind(Kind::Double);
    let scale = 1.0 + expected.abs().max().double_value(&[]);
    (got.to_kind(Kind::Double) - expected).abs().max().double_value(&[]) / scale
}

fn heads() -> impl Strategy<Value = Heads> {
    let widths =
        prop_oneof![Just(2usize), Just(16), Just(64), (1usize..40).prop_map(|half| 2 * half)];
    (1usize..5, 1usize..3, widths).prop_map(|(group, key_value, width)| Heads {
        query: group * key_value,
        key_value,
        width,
    })
}

fn text() -> impl Strategy<Value = PackedText> {
    let length = || prop_oneof![Just(1usize), 2usize..12, 30usize..75];
    let completions = proptest::collection::vec(prop_oneof![4 => length(), 1 => Just(0)], 0..5);
    (length(), completions).prop_map(|(prompt, completions)| PackedText { prompt, completions })
}

fn texts() -> impl Strategy<Value = Vec<PackedText>> {
    proptest::collection::vec(text(), 1..4)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn values_and_gradients_are_those_of_dense_attention(heads in heads(), texts in texts(), seed in 0i64..1000) {
        let case = Case::new(heads, texts, seed);
        let (attended, by_qkv) = case.run();
        let [out, log_sums, gradient] = case.reference();
        for (what, got, expected) in
            [("out", &attended.out, &out), ("log_sums", &attended.log_sums, &log_sums), ("gradient", &by_qkv, &gradient)]
        {
            prop_assert!(off(got, expected) < 5e-6, "{what} is off by {}", off(got, expected));
        }
    }

    #[test]
    fn a_shared_prompt_gives_what_its_copies_give(heads in heads(), text in text(), seed in 0i64..1000) {
        prop_assume!(!text.completions.is_empty());
        let prompt = text.prompt as i64;
        let shared = Case::new(heads, vec![text.clone()], seed);
        // Each completion behind a copy of the prompt, as a text of its own.
        let mut rows = Vec::new();
        let mut start = prompt;
        for &tokens in &text.completions {
            rows.extend((0..prompt).chain(start..start + tokens as i64));
            start += tokens as i64;
        }
        let alone = |&tokens: &usize| PackedText { prompt: text.prompt + tokens, completions: vec![] };
        let mut copies = shared.with_rows(&rows, text.completions.iter().map(alone).collect());
        // Only the first copy's outputs carry the prompt's gradient.
        let first = (0..rows.len()).map(|place| f32::from(u8::from(rows[place] >= prompt || place < text.prompt)));
        copies.gradient *= Tensor::from_slice(&first.collect::<Vec<_>>()).unsqueeze(1);
        let ((attended, by_qkv), (copied, by_copies)) = (shared.run(), copies.run());
        let rows = Tensor::from_slice(&rows);
        prop_assert!(off(&copied.out, &attended.out.index_select(0, &rows)) < 1e-6);
        prop_assert!(off(&by_qkv.zeros_like().index_add(0, &rows, &by_copies), &by_qkv) < 5e-6);
    }

    #[test]
    fn what_was_read_before_is_seen_as_if_it_stood_there(
        heads in heads(), texts in texts(), cuts in proptest::collection::vec(0.0f64..1.0, 3), seed in 0i64..1000,
    ) {
        let case = Case::new(heads, texts, seed);
        let (mut rows, mut rest, mut before) = (Vec::new(), Vec::new(), Vec::new());
        let mut start = 0;
        for (text, cut) in case.texts.iter().zip(cuts) {
            let read = (text.prompt as f64 * cut) as usize;
            before.push(case.read(start, read as i64));
            rest.push(PackedText { prompt: text.prompt - read, ..text.clone() });
            let end = start + (text.prompt + text.completions.iter().sum::<usize>()) as i64;
            rows.extend(start + read as i64..end);
            start = end;
        }

        let behind = case.with_rows(&rows, rest);
        let got = attend_packed_behind(&behind.step(), 0, &before.iter().collect::<Vec<_>>()).unwrap();
        let whole = attend_packed(&case.step()).unwrap();
        let rows = Tensor::from_slice(&rows);
        prop_assert!(off(&got.out, &whole.out.index_select(0, &rows)) < 1e-6);
        prop_assert!(off(&got.log_sums, &whole.log_sums.index_select(0, &rows)) < 1e-6);
    }

    #[test]
    fn the_order_of_completions_changes_nothing(heads in heads(), text in text(), seed in 0i64..1000) {
        let case = Case::new(heads, vec![text.clone()], seed);
        let (mut rows, mut end): (Vec<_>, _) = ((0..text.prompt as i64).collect(), positions(std::slice::from_ref(&text)).len());
        for &tokens in text.completions.iter().rev() {
            rows.extend((end - tokens) as i64..end as i64);
            end -= tokens;
        }
        let completions = text.completions.iter().rev().copied().collect();
        let turned = case.with_rows(&rows, vec![PackedText { completions, ..text }]);
        let ((attended, by_qkv), (other, by_other)) = (case.run(), turned.run());
        let rows = Tensor::from_slice(&rows);
        prop_assert_eq!(&other.out, &attended.out.index_select(0, &rows));
        // The prompt's gradients are sums over the completions in another order.
        prop_assert!(off(&by_other, &by_qkv.index_select(0, &rows)) < 5e-6);
    }

    #[test]
    fn no_token_sees_what_it_should_not(heads in heads(), texts in texts(), seed in 0i64..1000, pick in 0usize..1000) {
        let case = Case::new(heads, texts, seed);
        let mask = mask(&case.texts);
        let changed = (pick as i64) % mask.size()[0];
        let other = case.with_rows(&(0..mask.size()[0]).collect::<Vec<_>>(), case.texts.clone());
        let _ = other.qkv.get(changed).fill_(30.0);
        let (before, after) = (attend_packed(&case.step()).unwrap().out, attend_packed(&other.step()).unwrap().out);
        let blind = mask.select(1, changed).not_equal(0.0).unsqueeze(1).to_kind(Kind::Float);
        prop_assert_eq!(&before * &blind, &after * &blind);
        prop_assert!(before.get(changed) != after.get(changed));
    }
}

#[test]
fn bf16_is_f32_to_its_precision() {
    let heads = Heads { query: 6, key_value: 2, width: 64 };
    let texts = vec![PackedText { prompt: 21, completions: vec![5, 40, 1] }];
    // The same numbers, already rounded, in both kinds.
    let narrow = Case::new(heads, texts, 1).to_kind(Kind::BFloat16);
    let ((attended, by_qkv), (wide, by_wide)) = (narrow.run(), narrow.to_kind(Kind::Float).run());
    assert_eq!((attended.out.kind(), by_qkv.kind()), (Kind::BFloat16, Kind::BFloat16));
    for (got, expected) in [(&attended.out, &wide.out), (&by_qkv, &by_wide)] {
        assert!(
            off(got, expected) > 0.0 && off(got, expected) < 0.01,
            "off by {}",
            off(got, expected)
        );
    }
}

#[test]
fn long_texts_and_large_scores_keep_their_precision() {
    let heads = Heads { query: 2, key_value: 1, width: 8 };
    let mut case = Case::new(heads, vec![PackedText { prompt: 900, completions: vec![300, 2] }], 4);
    for scale in [1.0, 20.0] {
        case.qkv *= scale;
        let (attended, by_qkv) = case.run();
        let [out, _, gradient] = case.reference();
        assert!(
            off(&attended.out, &out) < 1e-3,
            "scores times {scale}²: off by {}",
            off(&attended.out, &out)
        );
        assert!(
            off(&by_qkv, &gradient) < 1e-3,
            "scores times {scale}²: off by {}",
            off(&by_qkv, &gradient)
        );
    }
}

#[test]
fn nothing_at_all_is_no_error() {
    let heads = Heads { query: 2, key_value: 1, width: 4 };
    for texts in [vec![], vec![PackedText::default()]] {
        let (attended, by_qkv) = Case::new(heads, texts, 1).run();
        assert_eq!((attended.out.size(), by_qkv.size()), (vec![0, 8], vec![0, 16]));
    }
}

#[test]
fn what_does_not_fit_is_named() {
    let good = Case::new(
        Heads { query: 2, key_value: 1, width: 4 },
        vec![PackedText { prompt: 2, completions: vec![1] }],
        1,
    );
    let refused = |change: &dyn Fn(&mut Case)| {
        let mut bad = good.to_kind(Kind::Float);
        change(&mut bad);
        attend_packed(&bad.step()).unwrap_err().to_string()
    };
    let heads =
        |query, key_value, width| refused(&|case| case.heads = Heads { query, key_value, width });
    assert_eq!(heads(3, 2, 4), "`heads` has shape [3, 2, 4], expected [4, 2, 4]");
    assert_eq!(heads(2, 0, 4), "`heads` has shape [2, 0, 4], expected [2, 1, 4]");
    assert_eq!(heads(0, 1, 3), "`heads` has shape [0, 1, 3], expected [1, 1, 4]");
    assert!(heads(usize::MAX, 1, 2).starts_with("`heads` has shape"));
    assert!(heads(2, 1, usize::MAX - 1).starts_with("`heads` has shape"));
    let completions =
        |lengths: &[usize]| refused(&|case| case.texts[0].completions = lengths.to_vec());
    assert!(completions(&[2]).starts_with("`qkv` has shape [3, 16], expected [4, 16]"));
    assert!(
        completions(&[usize::MAX, usize::MAX])
            .starts_with("`qkv` has shape [3, 16], expected [4294967295, 16]")
    );
    assert!(
        refused(&|case| case.cos = case.cos.narrow(0, 0, 2)).starts_with("`cos` has shape [2, 2]")
    );
    assert!(
        refused(&|case| case.sin = case.sin.to_kind(Kind::BFloat16))
            .starts_with("`sin` is of kind BFloat16")
    );
    assert!(
        refused(&|case| case.qkv = case.qkv.to_kind(Kind::Double))
            .starts_with("`qkv` is of kind Double")
    );
    assert!(
        refused(&|case| case.qkv = case.qkv.tr().contiguous().tr())
            .starts_with("`qkv` is not contiguous")
    );
}

#[test]
fn what_does_not_fit_on_the_way_back_is_named() {
    let case = Case::new(
        Heads { query: 2, key_value: 1, width: 4 },
        vec![PackedText { prompt: 3, completions: vec![] }],
        1,
    );
    let attended = || attend_packed(&case.step()).unwrap();
    let refused = |attended: PackedOutput, gradient: &Tensor| {
        attend_packed_backward(&case.step(), &attended, gradient).unwrap_err().to_string()
    };
    let narrow = case.gradient.to_kind(Kind::BFloat16);
    assert!(refused(attended(), &narrow).starts_with("`gradient` is of kind BFloat16"));
    assert!(
        refused(attended(), &case.gradient.narrow(0, 0, 2))
            .starts_with("`gradient` has shape [2, 8]")
    );
    assert!(
        refused(PackedOutput { out: narrow, ..attended() }, &case.gradient)
            .starts_with("`out` is of kind BFloat16")
    );
    let log_sums = attended().log_sums.narrow(1, 0, 1);
    assert!(
        refused(PackedOutput { log_sums, ..attended() }, &case.gradient)
            .starts_with("`log_sums` has shape [3, 1]")
    );
}
