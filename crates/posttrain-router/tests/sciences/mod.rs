//! A small part of the built-in set, in its roles.

use std::sync::OnceLock;

use posttrain_data::{SplitConfig, SplitSizes, sciences, split};
use posttrain_router::RouterData;

/// 200, 50 and 50 questions a domain.
pub fn data() -> &'static RouterData {
    static DATA: OnceLock<RouterData> = OnceLock::new();
    DATA.get_or_init(|| {
        let sizes = SplitSizes { train: 200, validation: 50, test: 50 };
        let splits =
            split(&sciences::generate(7).unwrap(), &SplitConfig { sizes, seed: 7 }).unwrap();
        RouterData::from_splits(&splits, &sciences::DOMAINS).unwrap()
    })
}
