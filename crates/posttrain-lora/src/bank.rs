//! Several adapters on one base.

use crate::{AdapterView, LoraError};
use std::collections::BTreeMap;
use std::rc::Rc;

/// Named adapter snapshots, of any ranks and targets, that share one base in memory.
///
/// A snapshot in use is never changed: putting another under its name leaves the rows that hold the old one as they are.
///
/// ```
/// use posttrain_lora::{Adapter, AdapterBank, LoraConfig, ModuleSpec};
/// let modules = [ModuleSpec::new("q_proj", 2, 2)];
/// let config = LoraConfig { rank: 1, ..LoraConfig::default() };
/// let adapter = Adapter::init(&config, &modules, 0, tch::Device::Cpu)?;
/// let mut bank = AdapterBank::default();
/// bank.put("math", adapter.snapshot(tch::Kind::Float)?);
/// assert!(bank.get("math").is_ok());
/// assert!(bank.get("maths").unwrap_err().to_string().contains("there are: math"));
/// # Ok::<(), posttrain_lora::LoraError>(())
/// ```
#[derive(Debug, Default)]
pub struct AdapterBank {
    views: BTreeMap<String, Rc<AdapterView>>,
}

impl AdapterBank {
    /// Puts a snapshot under a name, in place of one that was there.
    pub fn put(&mut self, name: impl Into<String>, view: AdapterView) {
        self.views.insert(name.into(), Rc::new(view));
    }

    /// The snapshot of that name.
    ///
    /// # Errors
    /// [`LoraError::UnknownAdapter`] lists the names there are.
    pub fn get(&self, name: &str) -> Result<Rc<AdapterView>, LoraError> {
        self.views.get(name).cloned().ok_or_else(|| LoraError::UnknownAdapter {
            name: name.into(),
            known: self.views.keys().cloned().collect::<Vec<_>>().join(", "),
        })
    }

    /// Takes a snapshot out; whether there was one.
    pub fn remove(&mut self, name: &str) -> bool {
        self.views.remove(name).is_some()
    }

    /// The names there are, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.views.keys().map(String::as_str)
    }
}
