//! Addresses of files that are good for a while, for a client that downloads without its key.

use crate::keys::Owner;
use axum::http::Uri;
use sha2::{Digest, Sha256};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use subtle::ConstantTimeEq;

/// How long an address is good.
pub(crate) const GOOD: Duration = Duration::from_secs(3600);

/// Signs addresses, with a secret of this process's own.
pub(crate) struct Signatures {
    secret: [u8; 32],
}

impl Signatures {
    pub fn new() -> Self {
        let mut secret = [0; 32];
        secret[..16].copy_from_slice(uuid::Uuid::new_v4().as_bytes());
        secret[16..].copy_from_slice(uuid::Uuid::new_v4().as_bytes());
        Self { secret }
    }

    /// An address with its owner, its end and its signature.
    pub fn sign(&self, path: &str, owner: &Owner) -> String {
        let until = now() + GOOD.as_secs();
        let signature = self.signature(path, owner, until);
        format!("{path}?owner={}&until={until}&signature={signature}", owner.as_str())
    }

    /// Whose address it is, where it was signed here and is good still.
    pub fn owner(&self, uri: &Uri) -> Option<Owner> {
        let mut parts = uri.query()?.split('&');
        let owner = Owner::of_folder(parts.next()?.strip_prefix("owner=")?);
        let until: u64 = parts.next()?.strip_prefix("until=")?.parse().ok()?;
        let given = parts.next()?.strip_prefix("signature=")?;

        let signature = self.signature(uri.path(), &owner, until);
        let same = bool::from(signature.as_bytes().ct_eq(given.as_bytes()));
        (same && now() <= until).then_some(owner)
    }

    fn signature(&self, path: &str, owner: &Owner, until: u64) -> String {
        let mut outer = Sha256::new();
        // Twice, with the secret on both sides: a longer path cannot be signed with a shorter one's
        // signature.
        let inner = Sha256::new()
            .chain_update(self.secret)
            .chain_update(path)
            .chain_update([0])
            .chain_update(owner.as_str())
            .chain_update(until.to_le_bytes())
            .finalize();
        outer.update(self.secret);
        outer.update(inner);
        outer.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_good_as_it_was_signed_and_no_other() {
        let signatures = Signatures::new();
        let owner = Owner::of_folder("abc");
        let good = signatures.sign("/api/v1/files/one", &owner);
        let read = |text: &str| signatures.owner(&text.parse().unwrap());
        assert_eq!(read(&good), Some(owner));
        assert_eq!(read(&good.replace("one", "two")), None);
        assert_eq!(read(&good.replace("owner=abc", "owner=abd")), None);
        assert_eq!(read(&good.replace("until=", "until=9")), None);
        assert_eq!(read("/api/v1/files/one"), None);
        assert_eq!(Signatures::new().owner(&good.parse().unwrap()), None);
    }
}
