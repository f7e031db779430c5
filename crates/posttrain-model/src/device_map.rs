//! Which device each of several models lies on.

use crate::{DeviceChoice, ModelError, select_device};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tch::Device;

/// A device for each of several models by name: one model a device, several models a device, but no model on two.
///
/// In a file a table, such as `{ math = "cuda:0", judge = "cuda:1" }`.
///
/// ```
/// use posttrain_model::{DeviceChoice, DeviceMap};
///
/// let map = DeviceMap::spread(["math", "code", "law"], 2);
/// assert_eq!(map.choice("law"), DeviceChoice::Cuda(0)); // the third of two
/// assert_eq!(map.choice("code"), DeviceChoice::Cuda(1));
/// assert_eq!(DeviceMap::spread(["math"], 0).choice("math"), DeviceChoice::Cpu);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DeviceMap {
    devices: BTreeMap<String, DeviceChoice>,
}

impl DeviceMap {
    /// Models dealt over so many CUDA devices, one after another; all on the CPU where there are none.
    pub fn spread<'a>(models: impl IntoIterator<Item = &'a str>, cuda_devices: usize) -> Self {
        let device = |index: usize| match index.checked_rem(cuda_devices) {
            Some(device) => DeviceChoice::Cuda(device),
            None => DeviceChoice::Cpu,
        };
        let devices = models.into_iter().enumerate().map(|(i, name)| (name.to_string(), device(i)));
        Self { devices: devices.collect() }
    }

    /// What is asked for a model; one that is not named takes what `auto` gives.
    pub fn choice(&self, model: &str) -> DeviceChoice {
        self.devices.get(model).copied().unwrap_or_default()
    }

    /// The device of a model.
    ///
    /// # Errors
    /// [`ModelError::Device`] if a CUDA device was asked for that is not there.
    pub fn device(&self, model: &str) -> Result<Device, ModelError> {
        select_device(self.choice(model))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_a_table_of_names() {
        let map: DeviceMap = serde_json::from_str(r#"{"math": "cpu", "judge": "cuda:3"}"#).unwrap();
        assert_eq!(map.device("math").unwrap(), Device::Cpu);
        assert_eq!(map.choice("judge"), DeviceChoice::Cuda(3));
        assert_eq!(map.choice("router"), DeviceChoice::Auto);
        assert!(serde_json::from_str::<DeviceMap>(r#"{"math": "gpu"}"#).is_err());
    }
}
