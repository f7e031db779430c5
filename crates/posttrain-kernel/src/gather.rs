//! Rows of many matrices, brought together in one.

use crate::KernelError;
use crate::layout::{Layout, lying};
use posttrain_tensor::{Element, TensorError, Values, ValuesMut, check_shape, values, values_mut};
use tch::{Device, Kind, Tensor};

/// Features that are rotated at a time: their cache lines serve the next row as well.
const FEATURES: usize = 16;

/// The rows `places[i] = (source, row)` of several matrices `[rows, F]`, one behind the other:
/// `[places, F]`, row by row.
///
/// Sources are f32 or bf16, of one kind, each in either layout. On the CPU they are copied
/// natively; elsewhere by libtorch.
///
/// # Errors
/// [`TensorError::Shape`] for no source, one of another width, or a place beyond the sources;
/// otherwise [`KernelError`] if a source is of another kind than the first, or strided.
///
/// ```
/// use tch::Tensor;
///
/// let by_rows = Tensor::from_slice(&[1f32, 2.0, 3.0, 4.0]).view([2, 2]);
/// let by_columns = Tensor::from_slice(&[5f32, 7.0, 6.0, 8.0]).view([2, 2]).tr(); // the rows (5, 6) and (7, 8)
/// let gathered = posttrain_kernel::gather_rows(&[&by_rows, &by_columns], &[(1, 1), (0, 0)])?;
/// assert_eq!(Vec::<f32>::try_from(gathered.view([-1])).unwrap(), [7.0, 8.0, 1.0, 2.0]);
/// # Ok::<(), posttrain_kernel::KernelError>(())
/// ```
pub fn gather_rows(sources: &[&Tensor], places: &[(usize, usize)]) -> Result<Tensor, KernelError> {
    let Some(first) = sources.first() else {
        return Err(
            TensorError::Shape { argument: "sources", expected: vec![-1], got: vec![0] }.into()
        );
    };

    let (_, width) = first.size2()?;
    let kind = first.kind();
    let device = first.device();
    for source in sources {
        check_shape("sources", source, &[-1, width])?;
        if source.kind() != kind {
            return Err(TensorError::Kind {
                argument: "sources",
                expected: "the first one's kind",
                got: source.kind(),
            }
            .into());
        }
    }

    let beyond = |(source, row): &&(usize, usize)| {
        sources.get(*source).is_none_or(|s| *row >= s.size()[0] as usize)
    };
    if let Some(&(source, row)) = places.iter().find(beyond) {
        let rows = sources.get(source).map_or(0, |s| s.size()[0]);
        return Err(TensorError::Shape {
            argument: "places",
            expected: vec![source as i64, rows - 1],
            got: vec![row as i64],
        }
        .into());
    }

    if device != Device::Cpu || !matches!(kind, Kind::Float | Kind::BFloat16) {
        return by_libtorch(sources, places);
    }

    let mut out = Tensor::f_empty([places.len() as i64, width], (kind, device))?;
    let mut wanted: Vec<Vec<(usize, usize)>> = vec![Vec::new(); sources.len()];
    places.iter().enumerate().for_each(|(to, &(source, row))| wanted[source].push((row, to)));

    for (source, wanted) in sources.iter().zip(&wanted).filter(|(_, wanted)| !wanted.is_empty()) {
        let (layout, lying) = lying("sources", source)?;
        match (values("sources", &lying)?, values_mut("out", &mut out)?) {
            (Values::F32(x), ValuesMut::F32(out)) => copy(x, layout, width as usize, wanted, out),
            (Values::Bf16(x), ValuesMut::Bf16(out)) => copy(x, layout, width as usize, wanted, out),
            _ => unreachable!("the result was made of the argument's kind"),
        }
    }

    Ok(out)
}

fn by_libtorch(sources: &[&Tensor], places: &[(usize, usize)]) -> Result<Tensor, KernelError> {
    let starts: Vec<i64> = sources
        .iter()
        .scan(0, |next, source| {
            let start = *next;
            *next += source.size()[0];
            Some(start)
        })
        .collect();

    let rows: Vec<i64> = places.iter().map(|&(source, row)| starts[source] + row as i64).collect();
    let rows = Tensor::f_from_slice(&rows)?.f_to_device(sources[0].device())?;
    Ok(Tensor::f_cat(sources, 0)?.f_index_select(0, &rows)?)
}

/// Copies the rows `wanted: (from, to)` of `x`.
fn copy<E: Element>(
    x: &[E],
    layout: Layout,
    width: usize,
    wanted: &[(usize, usize)],
    out: &mut [E],
) {
    if layout == Layout::Rows {
        for &(from, to) in wanted {
            out[to * width..][..width].copy_from_slice(&x[from * width..][..width]);
        }
        return;
    }

    let rows = x.len() / width.max(1);
    for (block, features) in x.chunks(FEATURES * rows).enumerate() {
        for &(from, to) in wanted {
            let out = &mut out[to * width + block * FEATURES..][..features.len() / rows];
            for (out, feature) in out.iter_mut().zip(features.chunks_exact(rows)) {
                *out = feature[from];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn source(rows: i64, width: i64, seed: i64, kind: Kind) -> Tensor {
        let values =
            (Tensor::arange(rows * width, (Kind::Float, Device::Cpu)) + seed * 1000).to_kind(kind);
        if seed % 2 == 0 { values.view([rows, width]) } else { values.view([width, rows]).tr() }
    }

    fn borrowed(sources: &[Tensor]) -> Vec<&Tensor> {
        sources.iter().collect()
    }

    proptest! {
        #[test]
        fn every_row_is_where_it_was_asked_for(
            sizes in prop::collection::vec(1i64..9, 1..6),
            width in 1i64..40,
            wanted in prop::collection::vec((0usize..6, 0usize..9), 0..30),
            bf16 in any::<bool>(),
        ) {
            let kind = if bf16 { Kind::BFloat16 } else { Kind::Float };
            let sources: Vec<_> =
                sizes.iter().enumerate().map(|(i, &rows)| source(rows, width, i as i64, kind)).collect();
            let places: Vec<_> = wanted
                .into_iter()
                .map(|(s, r)| (s % sources.len(), r))
                .map(|(s, r)| (s, r % sizes[s] as usize))
                .collect();
            let gathered = gather_rows(&borrowed(&sources), &places).unwrap();
            prop_assert!(gathered.is_contiguous());
            prop_assert_eq!(gathered.size(), [places.len() as i64, width]);
            prop_assert_eq!(&gathered, &by_libtorch(&borrowed(&sources), &places).unwrap());
            for (i, &(s, r)) in places.iter().enumerate() {
                prop_assert_eq!(gathered.get(i as i64), sources[s].get(r as i64));
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let [two, three] = [2, 3].map(|width| source(4, width, 0, Kind::Float));
        let error = |sources: &[Tensor], places| {
            gather_rows(&borrowed(sources), places).unwrap_err().to_string()
        };
        assert_eq!(error(&[], &[]), "`sources` has shape [0], expected [-1]");
        let both = [two.shallow_clone(), three];
        assert_eq!(error(&both, &[(0, 0)]), "`sources` has shape [4, 3], expected [-1, 2]");
        assert!(
            error(&[two.shallow_clone(), two.to_kind(Kind::BFloat16)], &[(0, 0)])
                .contains("BFloat16")
        );
        assert!(error(&[two.shallow_clone()], &[(0, 4)]).contains("`places`"));
        assert!(error(&[two.shallow_clone()], &[(1, 0)]).contains("`places`"));
        assert!(error(&[two.narrow(1, 0, 1)], &[(0, 0)]).contains("strides"));
    }
}
