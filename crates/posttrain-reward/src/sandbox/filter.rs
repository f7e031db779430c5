//! System calls that lead past a sandbox's other walls.
//!
//! - `socket(AF_UNIX)`: a Unix socket in the file system can be connected to though its file system
//!   is read-only and the network namespace another one. (`socketpair` stays: it leads nowhere.)
//! - `memfd_create`, `memfd_secret`, `shmget`: memory that no limit of a process's address space
//!   counts once it is unmapped.
//! - `io_uring_setup`: a second way to all of these.
//!
//! They fail with `EPERM`, as where a container forbids them. A filter is a thread's, and what the
//! thread starts inherits it: so programs are started by a thread that puts itself behind the
//! filter first.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter,
};

/// Added to a call's number by the kernel's interface for 32-bit pointers on x86-64, where it is
/// built in.
#[cfg(target_arch = "x86_64")]
const X32: i64 = 0x4000_0000;

/// A filter, ready to be applied; `None` where this processor has none.
pub(super) fn compile() -> Option<BpfProgram> {
    let architecture = TargetArch::try_from(std::env::consts::ARCH).ok()?;
    let refused = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    let filter = SeccompFilter::new(rules()?, SeccompAction::Allow, refused, architecture).ok()?;

    filter.try_into().ok()
}

/// The calls that are refused; a call without rules is refused whatever its arguments are.
fn rules() -> Option<BTreeMap<i64, Vec<SeccompRule>>> {
    let family = u64::try_from(libc::AF_UNIX).ok()?;
    let is_unix =
        SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, family).ok()?;
    let unix_socket = vec![SeccompRule::new(vec![is_unix]).ok()?];

    let mut rules = BTreeMap::from([(libc::SYS_socket, unix_socket)]);
    for call in
        [libc::SYS_memfd_create, libc::SYS_memfd_secret, libc::SYS_shmget, libc::SYS_io_uring_setup]
    {
        rules.insert(call, Vec::new());
    }

    #[cfg(target_arch = "x86_64")]
    for (call, conditions) in rules.clone() {
        rules.insert(call | X32, conditions);
    }
    Some(rules)
}

/// Runs `start` on a thread behind the filter. `None` where the kernel does not take it; `start`
/// has then not run.
pub(super) fn behind<T: Send>(filter: &BpfProgram, start: impl FnOnce() -> T + Send) -> Option<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| apply_filter(filter).ok().map(|()| start()));
        thread.join().ok().flatten()
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::{behind, compile};

    #[test]
    fn what_is_started_behind_the_filter_reaches_no_unix_socket() {
        let Some(filter) = compile() else { return };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let _listener = UnixListener::bind(&path).unwrap();
        let Some(error) = behind(&filter, || UnixStream::connect(&path).err()) else { return };
        assert_eq!(error.unwrap().kind(), std::io::ErrorKind::PermissionDenied);
        // Only that thread is behind it.
        assert!(UnixStream::connect(&path).is_ok());
        assert!(behind(&filter, || UnixStream::pair().is_ok()).unwrap());
    }
}
